package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	// Plainly nobody's secret. A gateway that shows it has let its caller pass to a place where k3s hands out its keys.
	bootstrapSecret = "stand-in bootstrap secret\n"

	headerTimeout = 30 * time.Second
	idleTimeout   = 90 * time.Second
	drainTimeout  = 5 * time.Second
)

// supervisor is k3s' port: a few paths of its own, and the API server behind all others.
//
// As in k3s the API server is called within the process, with the connection's own certificate: what identifies a caller
// here is exactly what does there, and no header is believed that the API server would not believe.
type supervisor struct {
	cacerts []byte
	api     atomic.Pointer[apiServer]
	server  *http.Server
}

func newSupervisor(l *layout, now time.Time, verbose bool) (*supervisor, error) {
	certificate, err := supervisorCertificate(l, now)
	if err != nil {
		return nil, err
	}
	s := &supervisor{cacerts: l.authorities[serverCA].pem}
	// Probes that connect and hang up would each be a line.
	var errorLog io.Writer = io.Discard
	if verbose {
		errorLog = os.Stderr
	}
	s.server = &http.Server{
		Handler: s,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{*certificate},
			// Which certificate is good is for the API server to say.
			ClientAuth: tls.RequestClientCert,
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"h2", "http/1.1"},
		},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          log.New(errorLog, "supervisor: ", 0),
	}
	return s, nil
}

// supervisorCertificate is made at each start, for there is nobody who would look for it in a file.
func supervisorCertificate(l *layout, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spec := l.serving("supervisor", pkix.Name{CommonName: "k3s", Organization: []string{"k3s"}})
	chain, err := spec.issue(key, now)
	if err != nil {
		return nil, err
	}
	certificate := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	return certificate, nil
}

func (s *supervisor) listen(address string, port int) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	go s.server.ServeTLS(listener, "", "")
	return nil
}

// drain lets no more requests in; close ends those that are left.
func (s *supervisor) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	s.server.Shutdown(ctx)
}

func (s *supervisor) close() { s.server.Close() }

func (s *supervisor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/ping":
		respond(w, http.StatusOK, "pong")
	case path == "/cacerts":
		respond(w, http.StatusOK, string(s.cacerts))
	case s.api.Load() == nil:
		w.Header().Set("Retry-After", "1")
		respond(w, http.StatusServiceUnavailable, "the API server is starting\n")
	case r.Method == http.MethodConnect || path == "/db/info" || strings.HasPrefix(path, "/v1-k3s/"):
		s.serveServers(w, r)
	case strings.HasPrefix(path, "/static/"):
		respond(w, http.StatusNotFound, "the stand-in has no charts\n")
	default:
		s.api.Load().handler.ServeHTTP(w, r)
	}
}

// serveServers answers where k3s serves its other servers and its agents, to those whom it would serve.
func (s *supervisor) serveServers(w http.ResponseWriter, r *http.Request) {
	// Authenticating takes the credentials out of the request.
	identity, ok, err := s.api.Load().authenticator.AuthenticateRequest(r.Clone(r.Context()))
	if err != nil || !ok {
		respond(w, http.StatusUnauthorized, "unauthorized\n")
		return
	}
	trusted := func(group string) bool { return group == user.SystemPrivilegedGroup || group == user.NodesGroup }
	switch {
	case !slices.ContainsFunc(identity.User.GetGroups(), trusted):
		respond(w, http.StatusForbidden, "forbidden\n")
	case r.URL.Path == "/v1-k3s/server-bootstrap" && r.Method == http.MethodGet:
		respond(w, http.StatusOK, bootstrapSecret)
	default:
		respond(w, http.StatusNotImplemented, "k3s would serve you here, the stand-in cannot\n")
	}
}

func respond(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
}
