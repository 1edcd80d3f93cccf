{{- define "portico.labels" -}}
app.kubernetes.io/name: portico
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The selector of everything that leads to Portico's pods, the Services per tenant included (host.podSelector). */}}
{{- define "portico.selector" -}}
portico.dev/component: portico
{{- end }}

{{- define "portico.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "portico.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $images := dict "controlPlaneImage" .Values.controlPlaneImage "k3sImage" .Values.k3sImage -}}
{{- $operator := merge (dict) ($config.operator | default dict) $images -}}
{{- $_ := set $config "operator" $operator -}}
{{- toYaml $config -}}
{{- end }}

{{/* The port of an "address:port" setting. */}}
{{- define "portico.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end }}

{{- define "portico.gatewayPort" -}}
{{- include "portico.port" (dig "gateway" "listen" "0.0.0.0:8443" .Values.config) -}}
{{- end }}

{{- define "portico.adminPort" -}}
{{- include "portico.port" (dig "admin" "listen" "0.0.0.0:9090" .Values.config) -}}
{{- end }}
