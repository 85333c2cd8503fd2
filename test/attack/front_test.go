package attack

import (
	"strings"
	"testing"
)

// TestFront has everything that one node can be asked at a time.
func TestFront(t *testing.T) {
	t.Parallel()
	f := start(t, setup{mail: ", limits: {handshake: 5s, errors: 100}", logins: ", limits: {handshake: 5s, errors: 40}", more: "  failures: {delay: 1ms, max_delay: 1ms}\n"})
	before := f.status("VmRSS")
	t.Run("words", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *front){
			"before TLS": beforeTLS, "old TLS": oldTLS, "logins": logins, "names": names, "PROXY headers": proxyHeaders, "web": web, "mail": floods, "renegotiation": renegotiation,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, f) })
		}
	})
	if grown := f.status("VmRSS") - before; grown > 128<<20 {
		t.Errorf("the node has %d MiB more than before", grown>>20)
	}
	// What was meant for somebody else came nowhere.
	if heard := f.heard(); strings.Contains(heard, "victim") || strings.Contains(heard, "canary") {
		t.Errorf("platforms heard %q", heard)
	}
	if strings.Contains(f.Output(), token) || strings.Contains(f.Output(), "canary-secret") {
		t.Error("the log has a secret")
	}
	// And it still works.
	for _, u := range upgrades {
		w := f.upgraded(t, u)
		login := strings.Replace(u.login, "%s", plain("anna@exchange.example", "pw"), 1)
		if u.id == "mx" {
			login = "MAIL FROM:<a@out.example>\r\nRCPT TO:<anna@exchange.example>\r\nDATA\r\n"
		}
		if err := w.send(login); err != nil {
			t.Fatal(err)
		}
		want := u.loggedIn
		if u.id == "mx" {
			want = "354 "
		}
		if said, err := w.until(want); err != nil {
			t.Errorf("%s: an honest client is answered %q, %v", u.id, said, err)
		}
		w.conn.Close()
	}
}
