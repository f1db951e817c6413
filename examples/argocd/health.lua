-- The health of a WhatsAppSession in Argo CD. Its status follows kstatus; what waits for a phone, and what is suspended,
-- is told apart here from what is under way.
local function progressing(message)
  return { status = "Progressing", message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return progressing("The session is being deleted.")
end

local annotations = obj.metadata.annotations or {}
if annotations["whatsapp-operator.io/paused"] == "true" then
  return { status = "Suspended", message = "The annotation whatsapp-operator.io/paused keeps the operator away." }
end

local status = obj.status or {}
if status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return progressing("The operator has not seen this spec yet.")
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

local stalled, ready, reconciling = conditions.Stalled, conditions.Ready, conditions.Reconciling
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if ready == nil then
  return progressing("The operator has not told anything yet.")
end
if ready.status == "True" then
  return { status = ready.reason == "Suspended" and "Suspended" or "Healthy", message = ready.message }
end
if reconciling ~= nil and reconciling.status == "True" and reconciling.reason == "WaitingForScan" then
  return { status = "Suspended", message = ready.message }
end
return progressing(ready.message)
