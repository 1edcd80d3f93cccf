package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// Portico answers metrics.k8s.io of this virtual cluster. The aggregator asks it by way of this relay, which says what there is
// by itself: a Portico that is away fails neither discovery nor the deletion of a namespace, which waits for it.
const (
	// HOST:PORT at which this cluster's pods reach Portico.
	metricsAddressVariable = "PORTICO_METRICS_ADDRESS"
	// On loopback only. Portico reads which port it is, where the Service of the aggregator leads.
	metricsRelayPort = 6440
	// Where Portico reads that the relay is there. As for every other path, authorization says who else may.
	metricsRelayPath = "/portico/metrics-relay"

	metricsGroup   = "metrics.k8s.io"
	metricsVersion = metricsGroup + "/v1beta1"
	// What Portico's certificate is valid for, wherever it is.
	porticoName = "kubernetes.default.svc"
)

const (
	relayDialWait = 5 * time.Second
	relayWait     = 15 * time.Second
	// Requests at once. Who finds no place is told to come again: a controller does so anyway.
	relayPlaces = 32
	// Ten thousand pods are less.
	longestAnswer = 16 << 20
	relayHeaders  = 64 << 10
)

type metricsRelay struct {
	port int
	// Common name of the aggregator's certificate: nobody else is answered.
	caller  string
	portico string
	client  *http.Client
	server  *http.Server
	places  chan struct{}
}

// startMetricsRelay returns nil where there is none: nobody said where Portico is, or this API server has no certificate that
// Portico would know it by. That it cannot serve is no reason to run no control plane.
func startMetricsRelay(ctx context.Context, pkiDir, portico string, port int) *metricsRelay {
	if portico == "" || len(missingFiles(pkiDir, []string{aggregatorCert, aggregatorKey})) > 0 {
		return nil
	}
	m, err := newMetricsRelay(pkiDir, portico, port)
	if err == nil {
		err = m.listen(ctx)
	}
	if err != nil {
		klog.ErrorS(err, "metrics.k8s.io cannot be relayed")
		return nil
	}
	return m
}

func newMetricsRelay(pkiDir, portico string, port int) (*metricsRelay, error) {
	if _, _, err := net.SplitHostPort(portico); err != nil {
		return nil, fmt.Errorf("$%s: %w", metricsAddressVariable, err)
	}
	certificate, err := readCertificate(filepath.Join(pkiDir, aggregatorCert))
	if err != nil {
		return nil, err
	}
	callers, err := readPool(filepath.Join(pkiDir, "front-proxy-ca.crt"))
	if err != nil {
		return nil, err
	}
	servers, err := readPool(filepath.Join(pkiDir, "server-ca.crt"))
	if err != nil {
		return nil, err
	}
	// Files, not their content: both are renewed while this runs.
	serving, own := pairOf(pkiDir, "apiserver.crt", "apiserver.key"), pairOf(pkiDir, aggregatorCert, aggregatorKey)
	m := &metricsRelay{port: port, caller: certificate.Subject.CommonName, portico: portico, places: make(chan struct{}, relayPlaces)}
	m.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{
				RootCAs: servers, ServerName: porticoName, MinVersion: tls.VersionTLS12,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() },
			},
			DialContext:           (&net.Dialer{Timeout: relayDialWait}).DialContext,
			TLSHandshakeTimeout:   relayDialWait,
			ResponseHeaderTimeout: relayWait,
			IdleConnTimeout:       time.Minute,
			MaxIdleConns:          1,
			MaxConnsPerHost:       relayPlaces,
			DisableCompression:    true,
			ForceAttemptHTTP2:     true,
			// A replica of Portico that is gone without a word.
			HTTP2: &http.HTTP2Config{SendPingTimeout: relayWait, PingTimeout: relayDialWait},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	m.server = &http.Server{
		Handler: m,
		TLSConfig: &tls.Config{
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: callers, MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serving() },
		},
		ReadHeaderTimeout: relayDialWait,
		WriteTimeout:      2 * relayWait,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    relayHeaders,
		// Whoever cannot shake hands is of this pod, and told by itself.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return m, nil
}

func pairOf(dir, cert, key string) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, cert), filepath.Join(dir, key))
		return &pair, err
	}
}

func readPool(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s: no certificate", file)
	}
	return pool, nil
}

// listen serves until the context ends. The name localhost may mean either address; one of them suffices.
func (m *metricsRelay) listen(ctx context.Context) error {
	var failures []error
	var listening bool
	for _, address := range []string{"127.0.0.1", "::1"} {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(m.port)))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		listening = true
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
			// In tests the first one finds a port for both.
			m.port = tcp.Port
		}
		go func() {
			if err := m.server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
				klog.ErrorS(err, "metrics.k8s.io is not relayed any more")
			}
		}()
	}
	if !listening {
		return errors.Join(failures...)
	}
	context.AfterFunc(ctx, func() { _ = m.server.Close() })
	return nil
}

// wrap tells Portico that it is there.
func (m *metricsRelay) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != metricsRelayPath {
			next.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		writeJSON(w, http.StatusOK, map[string]int{"port": m.port})
	})
}

func (m *metricsRelay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := strings.TrimSuffix(r.URL.Path, "/"); {
	// Portico's gateway has a certificate of the same authority, and no business here.
	case len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != m.caller:
		fail(w, http.StatusForbidden, metav1.StatusReasonForbidden, "only the aggregator of this API server is answered here")
	case r.Method != http.MethodGet:
		fail(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource")
	case path == "/apis/"+metricsVersion:
		writeJSON(w, http.StatusOK, metricsResources())
	case path == "/apis/"+metricsGroup:
		writeJSON(w, http.StatusOK, metricsAPIGroup())
	case strings.HasPrefix(path, "/apis/"+metricsVersion+"/"):
		m.forward(w, r)
	default:
		// Aggregated discovery and OpenAPI among others: the aggregator then asks for what is above, and does without.
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	}
}

// forward asks Portico, which answers by itself and never asks back for this.
func (m *metricsRelay) forward(w http.ResponseWriter, r *http.Request) {
	select {
	case m.places <- struct{}{}:
		defer func() { <-m.places }()
	default:
		fail(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many requests for metrics are in flight, please try again later")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), relayWait)
	defer cancel()
	target := url.URL{Scheme: "https", Host: m.portico, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		unavailable(w, r, err)
		return
	}
	// The user for Portico's log, and nothing else of him: this API server has judged him.
	for _, name := range []string{"Accept", "X-Remote-User"} {
		request.Header[name] = r.Header[name]
	}
	response, err := m.client.Do(request)
	if err != nil {
		unavailable(w, r, err)
		return
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusMisdirectedRequest || code/100 == 3:
		// Of this relay, not of the user: he may, or he would not be here. A connection shows the certificate of its handshake, which
		// may have ended: the next question shows the one of then.
		_ = response.Body.Close()
		m.client.CloseIdleConnections()
		unavailable(w, r, fmt.Errorf("Portico answers %s", response.Status))
		return
	}
	for _, name := range []string{"Content-Type", "Content-Length", "Retry-After"} {
		w.Header()[name] = response.Header[name]
	}
	w.WriteHeader(response.StatusCode)
	if written, err := io.Copy(w, io.LimitReader(response.Body, longestAnswer)); err != nil || written == longestAnswer {
		// Broken off, so that nobody takes a part for the whole.
		panic(http.ErrAbortHandler)
	}
}

func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	klog.V(2).Infof("%s: %v", r.URL.Path, err)
	resource := "pods"
	if strings.HasPrefix(r.URL.Path, "/apis/"+metricsVersion+"/nodes") {
		resource = "nodes"
	}
	// No Retry-After: clients would come again at once, and nobody would see what is wrong.
	fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable,
		fmt.Sprintf("the server is currently unable to handle the request (get %s.%s)", resource, metricsGroup))
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	writeJSON(w, code, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		klog.V(2).Infof("an answer was not taken: %v", err)
	}
}

func metricsAPIGroup() *metav1.APIGroup {
	version := metav1.GroupVersionForDiscovery{GroupVersion: metricsVersion, Version: strings.TrimPrefix(metricsVersion, metricsGroup+"/")}
	return &metav1.APIGroup{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"},
		Name:     metricsGroup, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version,
	}
}

func metricsResources() *metav1.APIResourceList {
	verbs := metav1.Verbs{"get", "list"}
	return &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: metricsVersion,
		APIResources: []metav1.APIResource{
			{Name: "nodes", Kind: "NodeMetrics", Verbs: verbs},
			{Name: "pods", Kind: "PodMetrics", Verbs: verbs, Namespaced: true},
		},
	}
}
