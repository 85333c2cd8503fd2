package listen

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/listen/listentest"
)

// certificate is one that nobody should trust.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestFront holds a protocol with one command, which echoes, to what holds for all.
func TestFront(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	secure := NewTLS(func() *tls.Config { return config })
	listentest.Run(t, func(t *testing.T, s listentest.Settings) string {
		_, addr := start(t, Options{ProxyNets: s.ProxyNets, HeaderTime: s.HeaderTime, ConnectionsPerAddress: s.ConnectionsPerAddress},
			func(c *Conn) bool {
				nc := c.NetConn()
				nc.SetDeadline(time.Now().Add(30 * time.Second))
				if s.Implicit {
					nc = tls.Server(nc, secure.Config())
				}
				echo(nc)
				return false
			})
		return addr
	})
}

func echo(nc net.Conn) {
	io.WriteString(nc, "hello\n")
	r := bufio.NewReader(nc)
	for {
		line, err := r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "PROXY ") || strings.HasPrefix(line, "\r") {
			return
		}
		io.WriteString(nc, line)
	}
}

// TestNothingIsReadBeyondAHeader sends each valid header with more behind it, in one write
// and in pieces of every size.
func TestNothingIsReadBeyondAHeader(t *testing.T) {
	_, addr := start(t, Options{ProxyNets: loopback, HeaderTime: 30 * time.Second}, func(c *Conn) bool {
		io.WriteString(c.NetConn(), c.Addr().String()+"\n")
		io.Copy(c.NetConn(), c.NetConn())
		return false
	})
	for _, h := range listentest.Headers() {
		if h.Kind != listentest.Valid {
			continue
		}
		const more = "\x16\x03\x01 and so on"
		for _, size := range []int{1, 7, 1 << 16} {
			nc := dial(t, addr)
			for rest := h.Bytes + more; rest != ""; {
				n := min(size, len(rest))
				if _, err := io.WriteString(nc, rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(nc)
			want := h.Client
			if want == "" {
				want = nc.LocalAddr().String()
			}
			if string(got) != want+"\n"+more {
				t.Errorf("%s, %d bytes at a time: got %q (%v), want %q", h.Name, size, got, err, want+"\n"+more)
			}
		}
	}
}

// TestSecureBehindTheHeader has a sender that tells of its client's TLS.
func TestSecureBehindTheHeader(t *testing.T) {
	addresses := []byte{192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25}
	for _, c := range []struct {
		name string
		tlv  []byte
		want bool
	}{
		{"none", nil, false},
		{"TLS", []byte{0x20, 0, 5, 0x01, 0, 0, 0, 0}, true},
		{"TLS with a version", []byte{0x20, 0, 15, 0x01, 0, 0, 0, 0, 0x21, 0, 7, 'T', 'L', 'S', 'v', '1', '.', '3'}, true},
		{"plain", []byte{0x20, 0, 5, 0x00, 0, 0, 0, 0}, false},
		{"empty", []byte{0x20, 0, 0}, false},
	} {
		h, _, err := parseHeader([]byte(listentest.V2(0x21, 0x11, append(addresses[:12:12], c.tlv...)...)))
		if err != nil || h.Secure != c.want {
			t.Errorf("%s: secure is %v (%v), want %v", c.name, h.Secure, err, c.want)
		}
	}
}
