{{/* One Deployment: name, roles (empty: all), isGateway, replicas and resources beside the root's own. */}}
{{- define "portico.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "portico.labels" . | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  strategy:
    # A new replica serves before an old one drains.
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels:
      portico.dev/component: {{ .name }}
  template:
    metadata:
      labels:
        {{- include "portico.labels" . | nindent 8 }}
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        portico.dev/component: {{ .name }}
        portico.dev/metrics: "true"
      annotations:
        checksum/config: {{ include "portico.config" . | sha256sum }}
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: portico
      enableServiceLinks: false
      dnsPolicy: {{ .Values.dnsPolicy }}
      terminationGracePeriodSeconds: {{ include "portico.gracePeriod" . }}
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      {{- with .Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              portico.dev/component: {{ .name }}
      containers:
        - name: portico
          image: {{ include "portico.image" . }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args:
            - serve
            - --config=/etc/portico/gateway.yaml
            {{- with .roles }}
            - --roles={{ . }}
            {{- end }}
          env:
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: POD_NAMESPACE
              valueFrom:
                fieldRef:
                  fieldPath: metadata.namespace
            {{- with .Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            {{- if .isGateway }}
            - name: https
              containerPort: {{ include "portico.gatewayPort" . }}
              protocol: TCP
            {{- end }}
            - name: health
              containerPort: {{ include "portico.healthPort" . }}
              protocol: TCP
            - name: metrics
              containerPort: {{ include "portico.metricsPort" . }}
              protocol: TCP
          startupProbe:
            httpGet:
              path: /livez
              port: health
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet:
              path: /livez
              port: health
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 6
          readinessProbe:
            httpGet:
              path: /readyz
              port: health
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 2
          resources:
            {{- toYaml .resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: config
              mountPath: /etc/portico
              readOnly: true
            {{- if include "portico.isAudited" . }}
            - name: audit
              mountPath: /var/lib/portico/audit
            {{- if .Values.audit.webhookSecret }}
            - name: audit-webhook
              mountPath: /etc/portico-audit
              readOnly: true
            {{- end }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: portico
        {{- if include "portico.isAudited" . }}
        - name: audit
          {{- if .Values.audit.volume.claimName }}
          persistentVolumeClaim:
            claimName: {{ .Values.audit.volume.claimName }}
          {{- else }}
          emptyDir:
            sizeLimit: {{ .Values.audit.volume.sizeLimit }}
          {{- end }}
        {{- with .Values.audit.webhookSecret }}
        - name: audit-webhook
          secret:
            secretName: {{ . }}
            defaultMode: 0440
        {{- end }}
        {{- end }}
      {{- with .Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
