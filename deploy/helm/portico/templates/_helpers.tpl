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

{{/* "true" or nothing. */}}
{{- define "portico.isSplit" -}}
{{- if eq .Values.topology "split" -}}
true
{{- else if ne .Values.topology "combined" -}}
{{- fail (printf "topology must be combined or split, not %q" .Values.topology) -}}
{{- end -}}
{{- end }}

{{- define "portico.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "portico.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $images := dict "controlPlaneImage" .Values.controlPlaneImage "k3sImage" .Values.k3sImage -}}
{{- $operator := merge (dict) ($config.operator | default dict) $images -}}
{{- $_ := set $config "operator" $operator -}}
{{- if .Values.kubelets.enabled -}}
{{- $kubelets := dict "enabled" true "ca" .Values.kubelets.ca "insecureSkipTLSVerify" .Values.kubelets.insecureSkipTLSVerify -}}
{{- $host := $config.host | default dict -}}
{{- $_ := set $host "kubelets" (merge (dict) ($host.kubelets | default dict) $kubelets) -}}
{{- $_ := set $config "host" $host -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/*
"true" or nothing: whether something for the Prometheus operator is made. Arguments: the root, the value's name, and the value,
which is true, false or "auto" (where that operator's CustomResourceDefinitions are).
*/}}
{{- define "portico.isWanted" -}}
{{- $root := index . 0 -}}
{{- $value := toString (index . 2) -}}
{{- if eq $value "auto" -}}
{{- if $root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}true{{- end -}}
{{- else if eq $value "true" -}}
true
{{- else if ne $value "false" -}}
{{- fail (printf "%s must be auto, true or false, not %q" (index . 1) $value) -}}
{{- end -}}
{{- end }}

{{/* The port of an "address:port" setting. */}}
{{- define "portico.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end }}

{{/* "true" or nothing: whether a Deployment writes the audit log. Argument: what portico.deployment is given. */}}
{{- define "portico.isAudited" -}}
{{- if and .isGateway (dig "audit" "enabled" false .Values.config) -}}true{{- end -}}
{{- end }}

{{- define "portico.gatewayPort" -}}
{{- include "portico.port" (dig "gateway" "listen" "0.0.0.0:8443" .Values.config) -}}
{{- end }}

{{- define "portico.healthPort" -}}
{{- include "portico.port" (dig "admin" "listen" "0.0.0.0:9090" .Values.config) -}}
{{- end }}

{{- define "portico.metricsPort" -}}
{{- include "portico.port" (dig "admin" "metricsListen" "0.0.0.0:9091" .Values.config) -}}
{{- end }}

{{/* Whole seconds of a duration such as 300ms, 10s, 5m or 1h, rounded up. */}}
{{- define "portico.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "m" -}}{{ mul $number 60 }}
{{- else if eq $unit "h" -}}{{ mul $number 3600 }}
{{- else -}}{{ $number }}
{{- end -}}
{{- end }}

{{/* A pod that is killed before its drain is over cuts requests. */}}
{{- define "portico.gracePeriod" -}}
{{- $delay := include "portico.seconds" (dig "gateway" "drainDelay" "5s" .Values.config) | int -}}
{{- $drain := include "portico.seconds" (dig "gateway" "drainTimeout" "25s" .Values.config) | int -}}
{{- $least := add $delay $drain 5 -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "terminationGracePeriodSeconds must be at least %d: config.gateway.drainDelay, drainTimeout and 5 seconds" $least) -}}
{{- end -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end }}
