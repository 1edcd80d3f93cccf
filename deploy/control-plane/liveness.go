package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	probeInterval = 100 * time.Millisecond
	probeTimeout  = 2 * time.Second
)

// awaitLive returns when the API server answers: controllers that start earlier exit when they cannot reach it.
func awaitLive(ctx context.Context, o *options, files *runtimeFiles, ended <-chan error) error {
	ca, err := os.ReadFile(filepath.Join(o.pkiDir, "server-ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s/server-ca.crt: no certificate", o.pkiDir)
	}
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: files.serverName, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}
	url := fmt.Sprintf("https://127.0.0.1:%d/livez", o.securePort)
	deadline := time.After(o.livenessWait)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	var last error
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("the API server is not live after %s: %w", o.livenessWait, last)
		case <-tick.C:
		}
		if last = probe(ctx, client, url); last == nil {
			return nil
		}
	}
}

func probe(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answers %s", response.Status)
	}
	return nil
}
