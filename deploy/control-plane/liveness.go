package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

const (
	probeInterval = 100 * time.Millisecond
	probeTimeout  = 2 * time.Second
)

// prober asks the API server whether it lives.
type prober struct {
	port       int
	caFile     string
	serverName string
	// A client certificate, where anonymous requests are refused.
	certFile, keyFile string
	patience          time.Duration
}

// await returns when the API server answers: controllers that start earlier exit when they cannot reach it.
func (p *prober) await(ctx context.Context, ended <-chan struct{}) error {
	config, err := p.tlsConfig()
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	url := fmt.Sprintf("https://127.0.0.1:%d/livez", p.port)
	deadline := time.After(p.patience)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	var last error
	for {
		select {
		case <-ended:
			return errors.New("ended before it was live")
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("not live after %s: %w", p.patience, last)
		case <-tick.C:
		}
		if last = probe(ctx, client, url); last == nil {
			return nil
		}
	}
}

func (p *prober) tlsConfig() (*tls.Config, error) {
	ca, err := os.ReadFile(p.caFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: p.serverName, MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate", p.caFile)
	}
	if p.certFile != "" {
		pair, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
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
