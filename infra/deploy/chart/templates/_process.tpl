{{- /* What all objects of a process are found by. Takes a dict of the root and the process's name. */ -}}
{{- define "relai.selector" -}}
app.kubernetes.io/name: relai
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .process }}
{{- end }}

{{- define "relai.metadata" -}}
name: {{ .root.Release.Name }}-{{ .process }}
labels:
  {{- include "relai.selector" . | nindent 2 }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}
