{{- define "sqs2pg.fullname" -}}
{{- if contains "sqs2pg" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-sqs2pg" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sqs2pg.selector" -}}
app.kubernetes.io/name: sqs2pg
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sqs2pg.labels" -}}
{{ include "sqs2pg.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sqs2pg.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "sqs2pg.fullname" .) "default") -}}
{{- end -}}

{{- define "sqs2pg.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* What the pods of the Deployment and of the Job have in common. */ -}}
{{- define "sqs2pg.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "sqs2pg.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The settings files by name: one, or one of each pipeline. */ -}}
{{- define "sqs2pg.files" -}}
{{- range .Values.pipelines }}
{{ .name }}.toml: |
  {{- .config | nindent 2 }}
{{- end }}
{{- if .Values.config }}
sqs2pg.toml: |
  {{- .Values.config | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What the schema cannot say of `pipelines`: KEDA must follow the queues that their configs read. */ -}}
{{- define "sqs2pg.checkPipelines" -}}
{{- if and .Values.pipelines .Values.autoscaling.pipeline -}}
{{- fail "autoscaling.pipeline is for one pipeline; of several, KEDA asks about each by its name" -}}
{{- end -}}
{{- $names := dict -}}
{{- range .Values.pipelines -}}
{{- if hasKey $names .name -}}
{{- fail (printf "pipelines: two are called %s" .name) -}}
{{- end -}}
{{- $_ := set $names .name true -}}
{{- if and $.Values.autoscaling.enabled (not .queueUrl) -}}
{{- fail (printf "pipelines: autoscaling needs the queueUrl of %s" .name) -}}
{{- end -}}
{{- $queue := base (.queueUrl | default "") -}}
{{- if and .queueUrl (not (regexMatch (printf "[\"'/:]%s[\"']" (regexQuoteMeta $queue)) .config)) -}}
{{- fail (printf "pipelines: the config of %s does not name the queue %s of its queueUrl" .name $queue) -}}
{{- end -}}
{{- $top := first (regexSplit "(?m)^[ \\t]*\\[" .config 2) -}}
{{- $named := regexFind "(?m)^[ \\t]*name[ \\t]*=.*" $top -}}
{{- if and $named (not (regexMatch (printf "=[ \\t]*[\"']%s[\"']" .name) $named)) -}}
{{- fail (printf "pipelines: the config of %s sets another name: leave it out" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sqs2pg.environment" -}}
{{- if and .Values.pipelines (or .Values.config .Values.queue.url) -}}
{{- fail "pipelines stands in place of config and queue.url: each pipeline's config has its source.queue" -}}
{{- end -}}
{{- include "sqs2pg.checkPipelines" . -}}
{{- if not (or .Values.pipelines .Values.queue.url) -}}
{{- fail "queue.url is missing" -}}
{{- end -}}
- {name: AWS_REGION, value: {{ .Values.queue.region | quote }}}
{{- with .Values.queue.endpointUrl }}
- {name: AWS_ENDPOINT_URL_SQS, value: {{ . | quote }}}
{{- end }}
{{- if not .Values.pipelines }}
- {name: SQS2PG_SOURCE__QUEUE, value: {{ .Values.queue.url | quote }}}
- {name: SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S, value: {{ .Values.queue.visibilityTimeoutS | quote }}}
{{- end }}
- {name: SQS2PG_SHUTDOWN_GRACE_S, value: {{ .Values.shutdownGraceS | quote }}}
- {name: SQS2PG_STATUS__BIND, value: "0.0.0.0:9465"}
{{- if .Values.database.iamAuth }}
- {name: SQS2PG_SINK__IAM_AUTH, value: "true"}
{{- end }}
{{- if .Values.pipelines }}
- {name: SQS2PG_CONFIG, value: /etc/sqs2pg}
{{- else if .Values.config }}
- {name: SQS2PG_CONFIG, value: /etc/sqs2pg/sqs2pg.toml}
{{- end }}
{{- range $name, $value := .Values.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "sqs2pg.egress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
- ports: [{port: {{ .Values.database.port }}, protocol: TCP}]
  to:
    {{- range .Values.networkPolicy.databaseCidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
- ports: [{port: 443, protocol: TCP}]
  to:
    {{- range .Values.networkPolicy.awsCidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
- ports: [{port: 80, protocol: TCP}]
  to:
    - ipBlock: {cidr: 169.254.170.23/32}
{{- end -}}
