-- Orthanc hands every CR and DX image to the node as it arrives, but not what the node sends.

function OnStoredInstance(instance, tags, metadata, origin)
  local modality = tags['Modality']
  if (modality == 'CR' or modality == 'DX') and origin['RemoteAet'] ~= 'PNEUMOJAX' then
    SendToModality(instance, 'pneumojax')
  end
end
