"""The documentation: pages, how they are built (`conf`), and what is made of the code for them."""
