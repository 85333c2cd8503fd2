package pop3

import (
	"strings"
	"testing"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
)

// What a client sends never gets past the core's refusal.
func FuzzServe(f *testing.F) {
	for _, seed := range []string{
		"USER anna\r\nPASS se cret\r\nSTAT\r\n", "AUTH PLAIN " + plain + "\r\nQUIT\r\n", "AUTH LOGIN\r\nYW5uYQ==\r\n*\r\n", "STLS\r\nUSER a\r\n", "CAPA\r\nAUTH\r\nNOOP\nQUIT\r\n", "AUTH PLAIN =\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 1<<16 {
			return
		}
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: login.Front{TLS: true, LineBytes: 512}, Login: func(*login.Attempt) (login.Welcome, error) {
			return login.Welcome{}, &login.Refusal{Cause: login.CauseClosed}
		}})
		s.Offer(string(input))
		s.CloseWrite()
		replies := s.All()
		session, _, err := s.Result()
		if session != nil || err == nil {
			t.Errorf("got %v, %v", session, err)
		}
		if !s.Wiped() {
			t.Error("a secret is still in memory")
		}
		if strings.Contains(replies, "[AUTH]") {
			t.Errorf("[AUTH] in %q", replies)
		}
	})
}

// What a platform sends gets no credentials before TLS, and nothing of its own to the
// client but one clean line.
func FuzzAuthenticate(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n+OK\r\nSASL PLAIN\r\n.\r\n+OK in\r\n", "+OK\r\n-ERR\r\n+OK\r\n-ERR [AUTH] no\r\n", "+OK\r\n+OK\r\nSTLS\r\n.\r\n", "-ERR [SYS/TEMP]\r\n", "+OK\r\n+OK\r\nSASL LOGIN\r\n.\r\n+ \r\n+ \r\n+ \r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, input []byte, encrypt bool) {
		if len(input) > 1<<16 {
			return
		}
		o := logintest.AuthenticateOptions{}
		if encrypt {
			o.Target.TLS = login.LegStartTLS
		}
		sent := ""
		got := logintest.Authenticate(t, Dialogue{}, o, attempt(), func(p *logintest.Peer) {
			p.Offer(string(input))
			p.CloseWrite()
			sent = p.All()
		})
		if encrypt && (got.Err == nil || got.Asked > 0 || strings.Contains(sent, "AUTH") || strings.Contains(sent, "USER")) {
			t.Errorf("credentials in plain text: %q, %v", sent, got.Err)
		}
		if final := string(got.Welcome.Final); got.Err == nil && (!strings.HasPrefix(final, "+OK") || strings.ContainsAny(final, "\r\n\x00") || len(final) > maxText) {
			t.Errorf("answer %q", final)
		}
	})
}
