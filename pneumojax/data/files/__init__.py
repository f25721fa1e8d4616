"""One image file in, one grey picture out; damaged and hostile files are refused."""
