package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

type front struct {
	*supervisor
	layout *layout
	url    string
}

func startFront(t *testing.T) *front {
	t.Helper()
	l := layoutIn(t, t.TempDir(), time.Now())
	s, err := newSupervisor(l, time.Now(), false)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.server.ServeTLS(listener, "", "")
	t.Cleanup(s.close)
	return &front{s, l, "https://" + listener.Addr().String()}
}

func (f *front) client(t *testing.T, certificate string) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool(), NextProtos: []string{"h2", "http/1.1"}}
	config.RootCAs.AddCert(f.layout.authorities[serverCA].cert)
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.layout.file(certificate+".crt"), f.layout.file(certificate+".key"))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 10 * time.Second}
}

func get(t *testing.T, client *http.Client, url string, header http.Header) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	return answer(t, client, request)
}

func answer(t *testing.T, client *http.Client, request *http.Request) (*http.Response, string) {
	t.Helper()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// byGroup stands for the API server's authenticator: it believes the common name of a certificate that a test shows.
func byGroup(groups map[string][]string) authenticator.Request {
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if len(r.TLS.PeerCertificates) == 0 {
			return nil, false, nil
		}
		name := r.TLS.PeerCertificates[0].Subject.CommonName
		return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: groups[name]}}, true, nil
	})
}

func TestOwnPaths(t *testing.T) {
	f := startFront(t)
	anybody := f.client(t, "")
	if response, body := get(t, anybody, f.url+"/ping", nil); response.StatusCode != 200 || body != "pong" || response.ProtoMajor != 2 {
		t.Error(response.Status, response.Proto, body)
	}
	if _, body := get(t, anybody, f.url+"/cacerts", nil); body != string(f.layout.authorities[serverCA].pem) {
		t.Error(body)
	}
	if response, _ := get(t, anybody, f.url+"/version", nil); response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Error("before the API server:", response.Status)
	}
}

func TestServersAndAgents(t *testing.T) {
	f := startFront(t)
	f.api.Store(&apiServer{
		handler:       http.NotFoundHandler(),
		authenticator: byGroup(map[string][]string{"system:admin": {"system:masters"}, "system:auth-proxy": {"system:nodes"}}),
	})
	for _, c := range []struct {
		certificate, path string
		code              int
		body              string
	}{
		{"", "/v1-k3s/server-bootstrap", 401, "unauthorized\n"},
		{"", "/v1-k3s/anything", 401, "unauthorized\n"},
		{"", "/db/info", 401, "unauthorized\n"},
		{"client-controller", "/v1-k3s/server-bootstrap", 403, "forbidden\n"},
		{"client-admin", "/v1-k3s/server-bootstrap", 200, bootstrapSecret},
		{"client-auth-proxy", "/v1-k3s/server-bootstrap", 200, bootstrapSecret},
		{"client-admin", "/db/info", 501, "k3s would serve you here, the stand-in cannot\n"},
		{"client-admin", "/v1-k3s", 404, "404 page not found\n"},
		{"client-admin", "/static/charts/x.tgz", 404, "the stand-in has no charts\n"},
	} {
		if response, body := get(t, f.client(t, c.certificate), f.url+c.path, nil); response.StatusCode != c.code || body != c.body {
			t.Errorf("%+v: %d %q", c, response.StatusCode, body)
		}
	}
}

// The API server gets the request with its connection, and nothing in it comes from the supervisor.
func TestHandsOverAsItCame(t *testing.T) {
	f := startFront(t)
	f.api.Store(&apiServer{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprintf(w, "%s %s %s %s", name, r.Header.Get("X-Remote-User"), r.Header.Get("Authorization"), r.URL)
	})})
	header := http.Header{"X-Remote-User": {"alice"}, "Authorization": {"Bearer t"}}
	for certificate, want := range map[string]string{"": "nobody", "client-auth-proxy": "system:auth-proxy", "client-admin": "system:admin"} {
		_, body := get(t, f.client(t, certificate), f.url+"/api//v1/%2e/x?watch=1", header)
		if body != want+" alice Bearer t /api//v1/%2e/x?watch=1" {
			t.Error(body)
		}
	}
	// Nobody's own authority makes a certificate good: that the API server decides, from the certificate alone.
	stranger := layoutIn(t, t.TempDir(), time.Now())
	client := f.client(t, "")
	pair, err := tls.LoadX509KeyPair(stranger.file("client-admin.crt"), stranger.file("client-admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	if response, _ := get(t, client, f.url+"/api", nil); response.StatusCode != 200 {
		t.Error("a strange certificate ends the handshake:", response.Status)
	}
}

func TestStreamsAndUpgrades(t *testing.T) {
	f := startFront(t)
	release := make(chan struct{})
	f.api.Store(&apiServer{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprintln(w, "first event")
			w.(http.Flusher).Flush()
			<-release
			return
		}
		connection, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer connection.Close()
		io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		io.WriteString(connection, "echo "+line)
	})})
	response, err := f.client(t, "").Get(f.url + "/api/v1/pods?watch=1")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); line != "first event\n" {
		t.Error(line, err)
	}
	close(release)
	response.Body.Close()

	config := f.client(t, "").Transport.(*http.Transport).TLSClientConfig
	config.NextProtos = []string{"http/1.1"}
	config.ServerName = "127.0.0.1"
	connection, err := tls.Dial("tcp", strings.TrimPrefix(f.url, "https://"), config)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	io.WriteString(connection, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	reader := bufio.NewReader(connection)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != 101 {
		t.Fatal(answer, err)
	}
	io.WriteString(connection, "hello\n")
	if line, err := reader.ReadString('\n'); line != "echo hello\n" {
		t.Error(line, err)
	}
}

func TestDrain(t *testing.T) {
	f := startFront(t)
	client := f.client(t, "")
	get(t, client, f.url+"/ping", nil)
	client.CloseIdleConnections()
	f.drain()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(f.url, "https://")); err == nil {
		connection.Close()
		t.Error("still listens")
	}
}
