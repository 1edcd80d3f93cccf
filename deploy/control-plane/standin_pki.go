package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	leafRenewal   = 90 * 24 * time.Hour
	serviceBits   = 2048
)

// authority signs certificates. Its file may hold others beside it, as it does while one is replaced.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// loadAuthority uses what is there, whoever put it there, and makes what is not.
func loadAuthority(dir, name string, now time.Time) (*authority, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	certPEM, certErr := os.ReadFile(certFile)
	keyPEM, keyErr := os.ReadFile(keyFile)
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		return makeAuthority(certFile, keyFile, "k3s-"+name, now)
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("an authority needs both %s and %s: %w", certFile, keyFile, errors.Join(certErr, keyErr))
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	certs, err := parseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	for _, cert := range certs {
		if samePublicKey(cert.PublicKey, key.Public()) {
			return &authority{cert, key, certPEM}, nil
		}
	}
	return nil, fmt.Errorf("%s is not the key of %s", keyFile, certFile)
}

func makeAuthority(certFile, keyFile, name string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	return a, writePair(certFile, keyFile, a.pem, key)
}

// leaf is a certificate that is renewed when it is nearly over and otherwise left alone.
type leaf struct {
	file  string
	ca    *authority
	name  pkix.Name
	usage x509.ExtKeyUsage
	sans  []string
}

func (l *leaf) ensure(dir string, now time.Time) error {
	certFile, keyFile := filepath.Join(dir, l.file+".crt"), filepath.Join(dir, l.file+".key")
	var key crypto.Signer
	if keyPEM, err := os.ReadFile(keyFile); err == nil {
		// A key that cannot be read is replaced together with its certificate.
		key, _ = parseKey(keyPEM)
	}
	if certPEM, err := os.ReadFile(certFile); err == nil && key != nil && l.good(certPEM, key, now) {
		return nil
	}
	fresh := key == nil
	if fresh {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
	}
	chain, err := l.issue(key, now)
	if err != nil {
		return err
	}
	if fresh {
		return writePair(certFile, keyFile, chain, key)
	}
	return writeAtomically(certFile, chain, 0o644)
}

func (l *leaf) good(certPEM []byte, key crypto.Signer, now time.Time) bool {
	certs, err := parseCertificates(certPEM)
	if err != nil {
		return false
	}
	cert, roots := certs[0], x509.NewCertPool()
	roots.AppendCertsFromPEM(l.ca.pem)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{l.usage}})
	return err == nil &&
		now.Add(leafRenewal).Before(cert.NotAfter) &&
		samePublicKey(cert.PublicKey, key.Public()) &&
		cert.Subject.CommonName == l.name.CommonName && slices.Equal(cert.Subject.Organization, l.name.Organization) &&
		!slices.ContainsFunc(l.sans, func(san string) bool { return !hasName(cert, san) })
}

func hasName(cert *x509.Certificate, san string) bool {
	if ip := net.ParseIP(san); ip != nil {
		return slices.ContainsFunc(cert.IPAddresses, ip.Equal)
	}
	return slices.Contains(cert.DNSNames, san)
}

// issue gives the certificate and its authority's, as k3s' files hold them.
func (l *leaf) issue(key crypto.Signer, now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		Subject:     l.name,
		NotBefore:   now.Add(-time.Minute),
		NotAfter:    now.Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{l.usage},
	}
	for _, san := range l.sans {
		if ip := net.ParseIP(san); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
	der, err := sign(template, l.ca.cert, key.Public(), l.ca.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.file, err)
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.ca.cert.Raw})...), nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

// ensureServiceKey keeps an existing key; k3s' own is RSA, which tokens' readers must be able to take.
func ensureServiceKey(dir string) error {
	file := filepath.Join(dir, "service.key")
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, serviceBits)
		if err != nil {
			return err
		}
		content = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		if err := writeAtomically(file, content, 0o600); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	block, key, err := firstKey(content)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if _, elliptic := key.(*ecdsa.PrivateKey); elliptic && block.Type == "PRIVATE KEY" {
		return fmt.Errorf("%s: kube-apiserver, and so k3s, cannot take an EC key in PKCS#8 (PRIVATE KEY) as --service-account-key-file: write it as SEC1 (EC PRIVATE KEY)", file)
	}
	// The file may hold older keys behind the first, for tokens that are still valid.
	return writeAtomically(filepath.Join(dir, "service.current.key"), pem.EncodeToMemory(block), 0o600)
}

func parseKey(content []byte) (crypto.Signer, error) {
	_, key, err := firstKey(content)
	return key, err
}

// firstKey passes over what openssl writes before a key.
func firstKey(content []byte) (*pem.Block, crypto.Signer, error) {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			key, err := parseKeyBlock(block)
			return block, key, err
		}
	}
	return nil, nil, errors.New("no private key in PEM")
}

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a private key that can be read (SEC1, PKCS#1 or PKCS#8)")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

func parseCertificates(content []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return certs, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// writePair writes the key first: who waits for the certificate finds both.
func writePair(certFile, keyFile string, chain []byte, key crypto.Signer) error {
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := writeAtomically(keyFile, keyPEM, 0o600); err != nil {
		return err
	}
	return writeAtomically(certFile, chain, 0o644)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		der, err := x509.MarshalECPrivateKey(ec)
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// writeAtomically: another container waits for the file, and must never see half of it. A file that is right already is
// left alone, since it may be mounted read-only.
func writeAtomically(path string, content []byte, mode os.FileMode) error {
	if existing, err := os.ReadFile(path); err == nil && bytes.Equal(existing, content) {
		return nil
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
