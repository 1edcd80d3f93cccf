// wget for the busybox image: Debian's static busybox crashes in that applet.
//
// Understands what tests and people use: -q -S -O FILE -T SECONDS --header H --post-data D --no-check-certificate
// --ca-certificate FILE URL, short options joined or not. Status 0 for 2xx, 8 for an error response, 4 when there is no answer.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

type request struct {
	url, output, body, ca string
	quiet, insecure, show bool
	post                  bool
	timeout               time.Duration
	header                http.Header
}

func main() {
	r, err := parse(os.Args[1:])
	if err != nil {
		fail(1, err)
	}
	response, err := r.send()
	if err != nil {
		fail(4, err)
	}
	defer response.Body.Close()
	if r.show {
		fmt.Fprintf(os.Stderr, "  %s %s\n", response.Proto, response.Status)
		response.Header.Write(os.Stderr)
	}
	if response.StatusCode/100 != 2 {
		fail(8, fmt.Errorf("server returned error: %s %s", response.Proto, response.Status))
	}
	if err := r.save(response.Body); err != nil {
		fail(4, err)
	}
}

func fail(code int, err error) {
	fmt.Fprintf(os.Stderr, "wget: %v\n", err)
	os.Exit(code)
}

func parse(args []string) (*request, error) {
	r := &request{timeout: 900 * time.Second, header: http.Header{}}
	take := func(i *int, attached string) (string, error) {
		if attached != "" {
			return attached, nil
		}
		if *i++; *i >= len(args) {
			return "", fmt.Errorf("option %s needs a value", args[len(args)-1])
		}
		return args[*i], nil
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case strings.HasPrefix(arg, "--"):
			name, value, attached := strings.Cut(arg[2:], "=")
			if err := r.long(name, value, attached, func() (string, error) { return take(&i, "") }); err != nil {
				return nil, err
			}
		case strings.HasPrefix(arg, "-") && arg != "-":
			if err := r.short(arg[1:], func(rest string) (string, error) { return take(&i, rest) }); err != nil {
				return nil, err
			}
		default:
			r.url = arg
		}
	}
	if r.url == "" {
		return nil, fmt.Errorf("no URL")
	}
	if !strings.Contains(r.url, "://") {
		r.url = "http://" + r.url
	}
	return r, nil
}

func (r *request) short(options string, value func(string) (string, error)) error {
	for k, o := range options {
		switch o {
		case 'q':
			r.quiet = true
		case 'S':
			r.show = true
		case 'O', 'T':
			v, err := value(options[k+1:])
			if err != nil {
				return err
			}
			return r.set(string(o), v)
		default:
			return fmt.Errorf("unknown option -%c", o)
		}
	}
	return nil
}

func (r *request) long(name, value string, attached bool, next func() (string, error)) error {
	switch name {
	case "quiet":
		r.quiet = true
		return nil
	case "server-response":
		r.show = true
		return nil
	case "no-check-certificate":
		r.insecure = true
		return nil
	case "spider":
		r.output = os.DevNull
		return nil
	}
	if !attached {
		var err error
		if value, err = next(); err != nil {
			return err
		}
	}
	return r.set(name, value)
}

func (r *request) set(name, value string) error {
	switch name {
	case "O", "output-document":
		r.output = value
	case "T", "timeout":
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		r.timeout = time.Duration(seconds * float64(time.Second))
	case "header":
		k, v, _ := strings.Cut(value, ":")
		r.header.Add(strings.TrimSpace(k), strings.TrimSpace(v))
	case "post-data":
		r.post, r.body = true, value
	case "ca-certificate":
		r.ca = value
	default:
		return fmt.Errorf("unknown option %s", name)
	}
	return nil
}

func (r *request) send() (*http.Response, error) {
	config := &tls.Config{InsecureSkipVerify: r.insecure}
	if r.ca != "" {
		pem, err := os.ReadFile(r.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
	}
	method := http.MethodGet
	if r.post {
		method = http.MethodPost
	}
	q, err := http.NewRequest(method, r.url, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		q.Header[k] = v
	}
	if host := r.header.Get("Host"); host != "" {
		q.Host = host
	}
	client := &http.Client{Timeout: r.timeout, Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment}}
	return client.Do(q)
}

func (r *request) save(body io.Reader) error {
	out := os.Stdout
	if r.output == "" {
		r.output = path.Base(strings.SplitN(r.url, "?", 2)[0])
		if r.output == "" || r.output == "/" || strings.Contains(r.output, ":") {
			r.output = "index.html"
		}
	}
	if r.output != "-" {
		file, err := os.Create(r.output)
		if err != nil {
			return err
		}
		defer file.Close()
		out = file
	}
	_, err := io.Copy(out, body)
	return err
}
