package config

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"time"
)

// keyPair checks the certificate and the key of a section.
func (c *checker) keyPair(section, certFile, keyFile string) {
	certKey, keyKey := section+".cert_file", section+".key_file"
	if certFile == "" {
		c.add(Problem{Key: certKey, Want: "the file with the certificate", Hint: "there is a key_file"}, keyKey)
		return
	}
	if keyFile == "" {
		c.add(Problem{Key: keyKey, Want: "the file with the certificate's key", Hint: "there is a cert_file"}, certKey)
		return
	}
	cert := c.readable(certKey, certFile)
	f, err := os.Open(keyFile)
	if err != nil {
		c.add(Problem{Key: keyKey, Value: show(keyFile), Want: "a file that can be read", Hint: reason(err)})
		return
	}
	defer f.Close()
	c.private(keyKey, keyFile, f)
	key := c.readable(keyKey, keyFile)
	if cert == nil || key == nil {
		return
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		c.add(Problem{Key: certKey, Value: show(certFile), Want: "a certificate in PEM that fits the key_file", Hint: strings.TrimPrefix(err.Error(), "tls: ")})
		return
	}
	if until := pair.Leaf.NotAfter; time.Now().After(until) {
		c.warn(Problem{Key: certKey, Value: show(certFile), Want: "a certificate that is valid now", Hint: "it ended at " + until.UTC().Format(time.RFC3339)})
	}
}

// roots checks a file of CA certificates.
func (c *checker) roots(key, path string) {
	if b := c.readable(key, path); b != nil && !x509.NewCertPool().AppendCertsFromPEM(b) {
		c.add(Problem{Key: key, Value: show(path), Want: "a file with CA certificates in PEM"})
	}
}
