package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"mailcutover/test/peers"
)

// What is said before TLS has no effect behind it, what has to wait for TLS is refused, and what
// was known before is forgotten.
func beforeTLS(t *testing.T, f *front) {
	const canary = "canary-1d7b"
	for _, u := range upgrades {
		// L1, L2: commands in the segment of STARTTLS.
		inject := u.noop
		if u.login != "" {
			inject = fmt.Sprintf(u.login, plain("anna@exchange.example", "pw"+canary))
		}
		if u.id == "mx" {
			inject = "MAIL FROM:<" + canary + "@out.example>\r\nRCPT TO:<victim@exchange.example>\r\n"
		}
		w := f.mustDial(t, u.id)
		if err := w.greet(u); err != nil {
			t.Fatalf("%s: %v", u.id, err)
		}
		if err := w.send(u.command + inject); err != nil {
			t.Fatal(err)
		}
		if said, ended := w.rest(); !ended || strings.Contains(said, u.loggedIn) && u.loggedIn == "235 " || strings.Contains(said, "250") {
			t.Errorf("%s: bytes behind STARTTLS are answered %q, ended %t", u.id, said, ended)
		}

		// L4: credentials in clear text.
		if u.login != "" {
			w := f.mustDial(t, u.id)
			if err := w.greet(u); err != nil {
				t.Fatalf("%s: %v", u.id, err)
			}
			if err := w.send(fmt.Sprintf(u.login, plain("anna@exchange.example", "pw")) + u.closing); err != nil {
				t.Fatal(err)
			}
			if said, ended := w.rest(); !ended || !strings.Contains(said, "538 5.7.11") && !strings.Contains(said, "PRIVACYREQUIRED") && !strings.Contains(said, "ENCRYPT-NEEDED") && !strings.Contains(said, "-ERR STLS") {
				t.Errorf("%s: credentials without TLS are answered %q, ended %t", u.id, said, ended)
			}
		}

		// L3: a second STARTTLS, and what was said before the first one.
		w = f.upgraded(t, u)
		again := u.command
		if u.id == "mx" {
			again += "RCPT TO:<victim@exchange.example>\r\n" // MAIL is not in the second session
		}
		if err := w.send(again + u.closing); err != nil {
			t.Fatal(err)
		}
		said, ended := w.rest()
		if first, _, _ := strings.Cut(said, "\r\n"); !ended || !strings.Contains(first, "503") && !strings.Contains(first, "502") && !strings.Contains(first, "BAD") && !strings.Contains(first, "-ERR") && !strings.HasPrefix(first, "NO") {
			t.Errorf("%s: a second STARTTLS is answered %q, ended %t", u.id, said, ended)
		}
	}
	// L3: EHLO before TLS is forgotten, and so is what it allowed.
	w := f.mustDial(t, "mx")
	err := w.greet(upgrades[4])
	if err == nil {
		err = w.send("STARTTLS\r\n")
	}
	if err == nil {
		_, err = w.until("220 ")
	}
	if err == nil {
		err = w.secure(f)
	}
	if err == nil {
		err = w.send("MAIL FROM:<" + canary + "@out.example>\r\nRCPT TO:<victim@exchange.example>\r\nQUIT\r\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	if said, _ := w.rest(); !strings.HasPrefix(said, "503 ") || strings.Contains(said, "250") {
		t.Errorf("MAIL behind TLS, for EHLO before it: %q", said)
	}
	if heard := f.heard(); strings.Contains(heard, canary) || strings.Contains(heard, "victim") {
		t.Errorf("platforms heard %q", heard)
	}
}

// L5: what is older than TLS 1.2 with forward secrecy and an AEAD is refused, at each listener
// that speaks TLS from the first byte.
func oldTLS(t *testing.T, f *front) {
	for _, c := range []struct {
		name   string
		config *tls.Config
		taken  bool
	}{
		{"TLS 1.0", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, false},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"1.2, CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}}, false},
		{"1.2, RC4 and 3DES", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}}, false},
		{"1.2, no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384}}, false},
		{"1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
	} {
		for _, id := range []string{"mxs", "imaps", "admin", "page", "autoconfig"} {
			w := f.mustDial(t, id)
			config := c.config.Clone()
			config.RootCAs, config.ServerName = f.authority.Pool(), "127.0.0.1"
			err := tls.Client(w.conn, config).Handshake()
			if taken := err == nil; taken != c.taken {
				t.Errorf("%s at %s: taken %t: %v", c.name, id, taken, err)
			}
			w.conn.Close()
		}
	}
}

// renegotiation holds to L5: a client that begins another handshake within TLS 1.2 gets none, and
// its connection ends.
func renegotiation(t *testing.T, f *front) {
	peers.Need(t, "openssl")
	for _, id := range []string{"mxs", "imaps", "admin", "page", "autoconfig"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, "openssl", "s_client", "-tls1_2", "-connect", f.addrs[id])
		var said output
		cmd.Stdout, cmd.Stderr = &said, &said
		in, err := cmd.StdinPipe() // stays open: the other side has to end it
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, id+": a session of TLS 1.2", func() bool { return strings.Contains(said.String(), "Extended master secret: yes") })
		if _, err := in.Write([]byte("R\n")); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); ctx.Err() != nil || !strings.Contains(said.String(), "RENEGOTIATING") {
			t.Errorf("L5 %s: ended %t, %v\n%s", id, ctx.Err() == nil, err, said.String())
		}
		cancel()
	}
}

// output is what a program has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
