{{- define "whatsapp-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "whatsapp-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "whatsapp-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "whatsapp-operator.selector" -}}
app.kubernetes.io/name: {{ include "whatsapp-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "whatsapp-operator.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
app.kubernetes.io/name: {{ include "whatsapp-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: whatsapp-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* An image by its digest if there is one. No repository is assumed: whoever owned it would have the operator's rights. */ -}}
{{- define "whatsapp-operator.image" -}}
{{- $image := (index .root.Values .name).image -}}
{{- $repository := required (printf "%s.image.repository: must be set to where you have pushed the image, such as registry.example.com/whatsapp-operator/%s" .name .name) $image.repository -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* "true" where the chart is rendered with a cluster at hand; helm template and Argo CD have none. */ -}}
{{- define "whatsapp-operator.live" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" }}true{{ end -}}
{{- end -}}

{{- /* What outlives the release. To Argo CD the first one means only that it outlives its Application. */ -}}
{{- define "whatsapp-operator.keep" -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Prune=false
{{- end -}}

{{- define "whatsapp-operator.claimKeySecret" -}}
{{- .Values.claimKey.existingSecret | default (printf "%s-claim-key" (include "whatsapp-operator.fullname" .)) -}}
{{- end -}}

{{- /* Fails early where an object of the Prometheus operator is asked for and the cluster does not know its kind. */ -}}
{{- define "whatsapp-operator.needsMonitoring" -}}
{{- if and (include "whatsapp-operator.live" .root) (not (.root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind))) -}}
{{- fail (printf "metrics.%s.enabled: this cluster has no %s (monitoring.coreos.com/v1). Install the Prometheus operator's definitions first, or set the value to false." .value .kind) -}}
{{- end -}}
{{- end -}}

{{- /* The namespaces whose session pods get NetworkPolicies. */ -}}
{{- define "whatsapp-operator.sessionNamespaces" -}}
{{- concat .Values.watchNamespaces .Values.networkPolicy.sessionNamespaces | uniq | sortAlpha | toJson -}}
{{- end -}}

{{- /* Egress that the operator and the session pods share: name resolution and the API server. */ -}}
{{- define "whatsapp-operator.commonEgress" -}}
{{- with .Values.networkPolicy.dns -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .Values.networkPolicy.apiServer }}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- else }}
    {{- include "whatsapp-operator.anywhere" $ | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}

{{- /* Any address but what api/egress.py forbids: link-local ones and the metadata services of clouds. */ -}}
{{- define "whatsapp-operator.anywhere" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      - "169.254.0.0/16"
      - "224.0.0.0/4"
      - "100.100.100.200/32"
      - "168.63.129.16/32"
      - "192.0.0.192/32"
- ipBlock:
    cidr: "::/0"
    except:
      - "fe80::/10"
      - "ff00::/8"
      - "fd00:ec2::/32"
      - "fd00:c1::a9fe:a9fe/128"
      - "fd20:ce::254/128"
      - "64:ff9b:1::/48"
      - "::a9fe:0/112"
      - "64:ff9b::a9fe:0/112"
      - "2002:a9fe::/32"
      - "::e000:0/100"
      - "64:ff9b::e000:0/100"
      - "2002:e000::/20"
      - "::6464:64c8/128"
      - "64:ff9b::6464:64c8/128"
      - "2002:6464:64c8::/48"
      - "::a83f:8110/128"
      - "64:ff9b::a83f:8110/128"
      - "2002:a83f:8110::/48"
      - "::c000:c0/128"
      - "64:ff9b::c000:c0/128"
      - "2002:c000:c0::/48"
{{- end -}}
