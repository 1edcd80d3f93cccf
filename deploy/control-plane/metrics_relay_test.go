package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// testAuthority signs what a virtual cluster's PKI holds.
func testAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a, err := makeAuthority(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue writes a leaf into a folder.
func (a *authority) issue(t *testing.T, dir, file, name string, usage x509.ExtKeyUsage, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for suffix, content := range map[string][]byte{".crt": certPEM, ".key": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, file+suffix), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// relayed is a relay between an aggregator and a Portico of the test's own.
type relayed struct {
	*metricsRelay
	frontProxy *authority
	aggregator tls.Certificate
	server     *authority
	dir        string
	cancel     context.CancelFunc
}

func relayTo(t *testing.T, portico http.HandlerFunc) *relayed {
	t.Helper()
	dir := t.TempDir()
	server, frontProxy := testAuthority(t, dir, "server-ca"), testAuthority(t, dir, "front-proxy-ca")
	server.issue(t, dir, "apiserver", "kube-apiserver", x509.ExtKeyUsageServerAuth, "localhost", "portico-metrics.kube-system.svc")
	aggregator := frontProxy.issue(t, dir, "aggregator", "front-proxy-client", x509.ExtKeyUsageClientAuth)
	other := t.TempDir()
	serving := server.issue(t, other, "gateway", "portico-gateway", x509.ExtKeyUsageServerAuth, porticoName)
	gateway := httptest.NewUnstartedServer(portico)
	gateway.TLS = &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequestClientCert}
	gateway.EnableHTTP2 = true
	gateway.StartTLS()
	t.Cleanup(gateway.Close)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	m := startMetricsRelay(ctx, dir, gateway.Listener.Addr().String(), 0)
	if m == nil {
		t.Fatal("no relay")
	}
	return &relayed{metricsRelay: m, frontProxy: frontProxy, aggregator: aggregator, server: server, dir: dir, cancel: cancel}
}

// as is a client that shows this certificate, and verifies as the aggregator does.
func (r *relayed) as(identity ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(r.server.cert)
	config := &tls.Config{RootCAs: pool, ServerName: "portico-metrics.kube-system.svc", Certificates: identity}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
}

func (r *relayed) ask(t *testing.T, method, path string) (int, string) {
	t.Helper()
	return r.askAs(t, r.as(r.aggregator), method, path)
}

func (r *relayed) askAs(t *testing.T, client *http.Client, method, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, fmt.Sprintf("https://127.0.0.1:%d%s", r.port, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Remote-User", "jane")
	request.Header.Set("X-Remote-Group", "system:masters")
	request.Header.Set("Authorization", "Bearer secret")
	request.Header.Set("Accept", "application/json")
	response, body := answer(t, client, request)
	return response.StatusCode, body
}

func TestARelayAsksPorticoAsTheAggregatorAndSaysWhoAsked(t *testing.T) {
	type seen struct {
		method, uri, caller string
		headers             http.Header
	}
	asked := make(chan seen, 4)
	r := relayTo(t, func(w http.ResponseWriter, r *http.Request) {
		caller := ""
		if len(r.TLS.PeerCertificates) > 0 {
			caller = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		asked <- seen{r.Method, r.RequestURI, caller, r.Header}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status"}`)
	})
	path := "/apis/metrics.k8s.io/v1beta1/namespaces/a%2Fb/pods?labelSelector=app%20in%20(x)"
	if code, body := r.ask(t, "GET", path); code != 404 || body != `{"kind":"Status"}` {
		t.Fatal(code, body)
	}
	got := <-asked
	if got.method != "GET" || got.uri != path || got.caller != "front-proxy-client" {
		t.Errorf("%+v", got)
	}
	if got.headers.Get("X-Remote-User") != "jane" || got.headers.Get("Accept") != "application/json" {
		t.Errorf("%v", got.headers)
	}
	for _, name := range []string{"X-Remote-Group", "Authorization"} {
		if got.headers.Get(name) != "" {
			t.Errorf("%s passes", name)
		}
	}
}

func TestDiscoveryNeedsNoPortico(t *testing.T) {
	r := relayTo(t, func(http.ResponseWriter, *http.Request) { t.Error("Portico was asked") })
	var resources metav1.APIResourceList
	code, body := r.ask(t, "GET", "/apis/metrics.k8s.io/v1beta1")
	if err := json.Unmarshal([]byte(body), &resources); err != nil || code != 200 {
		t.Fatal(code, body, err)
	}
	if resources.GroupVersion != metricsVersion || len(resources.APIResources) != 2 || !resources.APIResources[1].Namespaced {
		t.Error(body)
	}
	if code, body := r.ask(t, "GET", "/apis/metrics.k8s.io"); code != 200 || !strings.Contains(body, `"groupVersion":"metrics.k8s.io/v1beta1"`) {
		t.Error(code, body)
	}
	for _, path := range []string{"/", "/apis", "/openapi/v2", "/api/v1/secrets", "/apis/metrics.k8s.io/v1", "/apis/metrics.k8s.io.evil/v1beta1/pods"} {
		if code, body := r.ask(t, "GET", path); code != 404 {
			t.Error(path, code, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		if code, _ := r.ask(t, method, "/apis/metrics.k8s.io/v1beta1/nodes"); code != 405 {
			t.Error(method, code)
		}
	}
}

func TestNobodyButTheAggregatorIsAnswered(t *testing.T) {
	r := relayTo(t, func(http.ResponseWriter, *http.Request) { t.Error("Portico was asked") })
	pods := fmt.Sprintf("https://127.0.0.1:%d/apis/metrics.k8s.io/v1beta1/pods", r.port)
	stranger := testAuthority(t, t.TempDir(), "front-proxy-ca")
	for name, client := range map[string]*http.Client{
		"nobody":               r.as(),
		"another authority":    r.as(stranger.issue(t, t.TempDir(), "x", "front-proxy-client", x509.ExtKeyUsageClientAuth)),
		"a serving leaf of it": r.as(r.frontProxy.issue(t, t.TempDir(), "x", "front-proxy-client", x509.ExtKeyUsageServerAuth)),
	} {
		if response, err := client.Get(pods); err == nil {
			response.Body.Close()
			t.Error(name, response.Status)
		}
	}
	gateway := r.frontProxy.issue(t, t.TempDir(), "x", "portico-gateway", x509.ExtKeyUsageClientAuth)
	if code, body := r.askAs(t, r.as(gateway), "GET", "/apis/metrics.k8s.io/v1beta1"); code != 403 {
		t.Error(code, body)
	}
}

func TestWhatPorticoRefusesTheRelayIsNoFaultOfTheUsers(t *testing.T) {
	var code int
	r := relayTo(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://127.0.0.1/elsewhere")
		w.WriteHeader(code)
	})
	for _, code = range []int{401, 403, 421, 302} {
		got, body := r.ask(t, "GET", "/apis/metrics.k8s.io/v1beta1/pods")
		if got != 503 || !strings.Contains(body, "unable to handle the request (get pods.metrics.k8s.io)") {
			t.Error(code, got, body)
		}
	}
	for _, code = range []int{400, 404, 429, 503} {
		if got, _ := r.ask(t, "GET", "/apis/metrics.k8s.io/v1beta1/pods"); got != code {
			t.Error(code, got)
		}
	}
}

func TestAPorticoThatIsAwayIs503AndABrokenAnswerIsNoWhole(t *testing.T) {
	r := relayTo(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "a part")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	response, err := r.as(r.aggregator).Get(fmt.Sprintf("https://127.0.0.1:%d/apis/metrics.k8s.io/v1beta1/pods", r.port))
	if err == nil {
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil {
			t.Errorf("%q passes for the whole", body)
		}
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.portico = nobody.Addr().String()
	_ = nobody.Close()
	code, body := r.ask(t, "GET", "/apis/metrics.k8s.io/v1beta1/nodes")
	if code != 503 || !strings.Contains(body, "(get nodes.metrics.k8s.io)") || !strings.Contains(body, `"reason":"ServiceUnavailable"`) {
		t.Error(code, body)
	}
	// Discovery goes on.
	if code, _ := r.ask(t, "GET", "/apis/metrics.k8s.io/v1beta1"); code != 200 {
		t.Error(code)
	}
}

func TestARenewedCertificateIsShownFromTheNextHandshake(t *testing.T) {
	r := relayTo(t, func(http.ResponseWriter, *http.Request) {})
	r.server.issue(t, r.dir, "apiserver", "renewed", x509.ExtKeyUsageServerAuth, "portico-metrics.kube-system.svc")
	response, err := r.as(r.aggregator).Get(fmt.Sprintf("https://127.0.0.1:%d/apis/metrics.k8s.io", r.port))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if name := response.TLS.PeerCertificates[0].Subject.CommonName; name != "renewed" {
		t.Error(name)
	}
}

// A connection shows the certificate of its handshake as long as it is used.
func TestAnEndedCertificateIsNotShownForEver(t *testing.T) {
	r := relayTo(t, func(w http.ResponseWriter, request *http.Request) {
		if request.TLS.PeerCertificates[0].Subject.CommonName == "front-proxy-client" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	path := "/apis/metrics.k8s.io/v1beta1/nodes"
	if code, body := r.ask(t, http.MethodGet, path); code != http.StatusServiceUnavailable {
		t.Fatal(code, body)
	}
	r.frontProxy.issue(t, r.dir, "aggregator", "renewed", x509.ExtKeyUsageClientAuth)
	if code, body := r.ask(t, http.MethodGet, path); code != http.StatusOK {
		t.Error(code, body)
	}
}

func TestARelayOnlyWhereItHasAddressAndCertificate(t *testing.T) {
	r := relayTo(t, func(http.ResponseWriter, *http.Request) {})
	for name, m := range map[string]*metricsRelay{
		"no address":    startMetricsRelay(t.Context(), r.dir, "", 0),
		"no port":       startMetricsRelay(t.Context(), r.dir, "127.0.0.1", 0),
		"no such files": startMetricsRelay(t.Context(), t.TempDir(), "127.0.0.1:1", 0),
	} {
		if m != nil {
			t.Error(name)
		}
	}
	r.cancel()
	for range 100 {
		connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
		if err != nil {
			return
		}
		_ = connection.Close()
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("it listens after its end")
}

func TestItIsToldThatTheRelayIsThere(t *testing.T) {
	m := &metricsRelay{port: metricsRelayPort}
	handler := m.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for target, want := range map[[2]string]int{{"GET", metricsRelayPath}: 200, {"POST", metricsRelayPath}: 405, {"GET", "/api"}: http.StatusTeapot} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(target[0], target[1], nil))
		if w.Code != want {
			t.Error(target, w.Code)
		}
		if want == 200 && strings.TrimSpace(w.Body.String()) != `{"port":6440}` {
			t.Error(w.Body.String())
		}
	}
}
