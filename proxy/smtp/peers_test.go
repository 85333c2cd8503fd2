package smtp

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/test/peers"
)

// loopback is where all peers of the tests are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// received waits until n messages arrived.
func (r *recorder) received(t *testing.T, n int) {
	t.Helper()
	eventually(t, "the messages arrive", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.messages) >= n
	})
}

// TestPostfixAsMX has Postfix as the relay in front: over STARTTLS, with XFORWARD, with
// DSN parameters, and with all recipients in one batch.
func TestPostfixAsMX(t *testing.T) {
	peers.Need(t, "postfix", "swaks")
	for _, protocol := range []Protocol{ProtocolSMTP, ProtocolLMTP} {
		t.Run(protocol.String(), func(t *testing.T) {
			r := &recorder{}
			o := testOptions()
			o.Protocol, o.XForwardNets, o.TLSConfig = protocol, loopback, serverTLS(t)
			_, addr := startServer(t, o, r)
			name := protocol.String()
			mx := peers.StartMX(t, peers.MXOptions{
				NextHop: addr, LMTP: protocol == ProtocolLMTP,
				Settings: map[string]string{
					name + "_tls_security_level": "may", name + "_send_xforward_command": "yes",
				},
			})
			if out, status := peers.Swaks(t, "--server", mx.Addr, "--helo", "client.example", "--from", "a@out.example",
				"--to", "b@in.example,c@in.example,d@in.example", "--body", ".leading dot\nlast line"); status != 0 {
				t.Fatalf("swaks: status %d\n%s", status, out)
			}
			r.received(t, 1)
			r.mu.Lock()
			defer r.mu.Unlock()
			c := r.clients[0]
			if c.Helo != "client.example" || c.Addr.Addr().String() != "127.0.0.1" || c.Addr == c.Peer ||
				!strings.HasPrefix(c.TLS, "TLS1.3 ") || c.With != map[Protocol]string{ProtocolSMTP: "ESMTPS", ProtocolLMTP: "LMTPS"}[protocol] {
				t.Errorf("client is %+v", c)
			}
			if len(r.batches) != 1 || len(r.batches[0]) != 3 || r.batches[0][0].Options.OriginalRecipient != "b@in.example" {
				t.Errorf("recipients came as %+v", r.batches)
			}
			if !strings.Contains(r.messages[0], "\r\n\r\n.leading dot\r\nlast line") {
				t.Errorf("message is %q", r.messages[0])
			}
		})
	}
}

// TestClients has the clients that operators try things out with.
func TestClients(t *testing.T) {
	peers.Need(t, "swaks", "curl", "smtp-source")
	r := &recorder{}
	o := testOptions()
	o.TLSConfig = serverTLS(t)
	_, addr := startServer(t, o, r)
	for _, args := range [][]string{{}, {"--pipeline"}} {
		args = append([]string{"--server", addr, "--from", "a@out.example", "--to", "b@in.example"}, args...)
		if out, status := peers.Swaks(t, args...); status != 0 {
			t.Errorf("swaks %q: status %d\n%s", args, status, out)
		}
	}
	if out, status := peers.Swaks(t, "--server", addr, "--from", "a@out.example", "--to", "b@in.example", "--xclient", "ADDR=192.0.2.1"); status == 0 {
		t.Errorf("swaks with XCLIENT: status 0\n%s", out)
	}
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("Subject: x\r\n\r\nin TLS\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, status := peers.Curl(t, "--ssl-reqd", "-k", "--mail-from", "a@out.example", "--mail-rcpt", "b@in.example", "-T", file, "smtp://"+addr); status != 0 {
		t.Errorf("curl in TLS: status %d\n%s", status, out)
	}
	if out, status := peers.CurlMail(t, addr, "a@out.example", []string{"b@in.example"}, []byte("Subject: x\n\n.dot\nby curl\n")); status != 0 {
		t.Errorf("curl: status %d\n%s", status, out)
	}
	peers.Source(t, addr, peers.SourceOptions{From: "a@out.example", To: "b@in.example", Messages: 500, Sessions: 10, Length: 10 << 10, Recipients: 3})
	r.received(t, 504)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.messages) != 504 || len(r.broken) != 0 {
		t.Errorf("%d messages arrived, %v broken", len(r.messages), r.broken)
	}
	if want := "Subject: x\r\n\r\n.dot\r\nby curl\r\n"; !strings.HasSuffix(r.messages[3], want) {
		t.Errorf("curl's message is %q", r.messages[3])
	}
}

// TestHAProxyInFront has the balancer's headers of both versions, also before TLS.
func TestHAProxyInFront(t *testing.T) {
	peers.Need(t, "haproxy")
	for _, option := range []string{"send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"} {
		t.Run(option, func(t *testing.T) {
			r := &recorder{}
			o := testOptions()
			o.ProxyNets, o.TLSConfig = loopback, serverTLS(t)
			_, addr := startServer(t, o, r)
			balancer := peers.StartHAProxy(t, addr, strings.Fields(option)...)
			p := dial(t, balancer.Addr).hello()
			p.command("STARTTLS", "220 ")
			if err := p.startTLS(anyCertificate); err != nil {
				t.Fatal(err)
			}
			p.command("EHLO x", "250")
			p.envelope()
			r.mu.Lock()
			defer r.mu.Unlock()
			if c := r.clients[0]; c.Addr.String() != p.local.String() || c.Local.String() != balancer.Addr || c.Peer == c.Addr {
				t.Errorf("client is %+v, want address %v and local %s", c, p.local, balancer.Addr)
			}
		})
	}
}
