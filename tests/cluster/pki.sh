# Keys, certificates and kubeconfigs of the local cluster (sourced by up).
# shellcheck shell=bash
# The front proxy has a CA of its own: who may set identity headers must not follow from having a client certificate.

pki=$cluster/pki

authority() {
  [ ! -f "$pki/$1.crt" ] || return 0
  openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
  openssl req -x509 -new -key "$pki/$1.key" -days 3650 -subj "/CN=portico-local-$1" -out "$pki/$1.crt"
}

# issue NAME AUTHORITY SUBJECT USAGE [SANS]
issue() {
  local name=$1 ca=$2 subject=$3 usage=$4 sans=${5:-}
  [ ! -f "$pki/$name.crt" ] || return 0
  openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$name.key"
  openssl req -new -key "$pki/$name.key" -subj "$subject" -out "$pki/$name.csr"
  printf '%s\n' "keyUsage=critical,digitalSignature" "extendedKeyUsage=$usage" ${sans:+"subjectAltName=$sans"} >"$pki/$name.ext"
  openssl x509 -req -in "$pki/$name.csr" -CA "$pki/$ca.crt" -CAkey "$pki/$ca.key" -set_serial "0x$(openssl rand -hex 16)" \
    -days 3650 -sha256 -extfile "$pki/$name.ext" -out "$pki/$name.crt.new"
  mv "$pki/$name.crt.new" "$pki/$name.crt"
  rm -f "$pki/$name.csr" "$pki/$name.ext"
}

make_pki() {
  local server="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost"
  authority server-ca; authority client-ca; authority front-proxy-ca
  issue apiserver server-ca /CN=kube-apiserver serverAuth "$server,IP:127.0.0.1,IP:$services.0.1,IP:$node_ip"
  issue kubelet-serving server-ca "/O=system:nodes/CN=system:node:$node" serverAuth "DNS:$node,IP:127.0.0.1,IP:$node_ip"
  issue metrics-server server-ca /CN=metrics-server serverAuth "DNS:metrics-server.kube-system.svc"
  issue admin client-ca /O=system:masters/CN=admin clientAuth
  issue controller-manager client-ca /CN=system:kube-controller-manager clientAuth
  issue scheduler client-ca /CN=system:kube-scheduler clientAuth
  issue proxy client-ca /CN=system:kube-proxy clientAuth
  issue kubelet client-ca "/O=system:nodes/CN=system:node:$node" clientAuth
  issue apiserver-kubelet client-ca /O=system:masters/CN=apiserver-kubelet clientAuth
  issue front-proxy front-proxy-ca /CN=front-proxy-client clientAuth
  [ -f "$pki/sa.pub" ] || { openssl genrsa -out "$pki/sa.key" 2048; openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub"; }
}

# kubeconfig USER FILE: everything inside, so that it can be copied anywhere.
make_kubeconfig() {
  local user=$1 file=$2
  (umask 077; cat >"$file.new") <<K
apiVersion: v1
kind: Config
clusters:
  - name: portico-local
    cluster: {server: "https://127.0.0.1:$api_port", certificate-authority-data: $(base64 -w0 "$pki/server-ca.crt")}
users:
  - name: $user
    user: {client-certificate-data: $(base64 -w0 "$pki/$user.crt"), client-key-data: $(base64 -w0 "$pki/$user.key")}
contexts:
  - name: portico-local
    context: {cluster: portico-local, user: $user}
current-context: portico-local
K
  mv "$file.new" "$file"
}
