// Go's own server, which answers every request and says on standard output, line by line, what it took for one.
//
// main CERTIFICATE KEY: listens on a port of its own of 127.0.0.1 and writes its address first.
package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

type seen struct {
	Method string `json:"method"`
	Target string `json:"target"`
	Path   string `json:"path"`
	Body   string `json:"body"`
	User   string `json:"user"`
}

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var lock sync.Mutex
	say := func(value any) {
		lock.Lock()
		defer lock.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
			log.Fatal(err)
		}
	}
	say(listener.Addr().String())
	// Whoever started it is gone when its input ends.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	server := &http.Server{
		ReadTimeout: 20 * time.Second,
		ErrorLog:    log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			say(seen{r.Method, r.RequestURI, r.URL.Path, string(body), r.Header.Get("X-Remote-User")})
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "go")
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert},
	}
	log.Fatal(server.ServeTLS(listener, "", ""))
}
