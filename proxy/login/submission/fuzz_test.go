package submission

import (
	"strings"
	"testing"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
)

// What a client sends never gets past the core's refusal, and no secret but its own is taken.
func FuzzServe(f *testing.F) {
	for _, seed := range []string{
		"EHLO x\r\nAUTH PLAIN " + plain("", "anna", "secret") + "\r\nMAIL FROM:<a@b>\r\n", "EHLO x\r\nAUTH LOGIN\r\nYW5uYQ==\r\n*\r\nQUIT\r\n",
		"EHLO x\r\nAUTH PLAIN\r\n=\r\nBDAT 5 LAST\r\nAUTH \r\nRSET\r\n", "STARTTLS\r\nNOOP\r\n", "HELO x\nQUIT\r\n", "BDAT 9223372036854775807\r\n", "BDAT -1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 1<<16 {
			return
		}
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: login.Front{TLS: true, LineBytes: 512}, Login: func(*login.Attempt) (login.Welcome, error) {
			return login.Welcome{}, &login.Refusal{Cause: login.CauseWrong}
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
		for _, line := range strings.SplitAfter(strings.TrimSuffix(replies, "\r\n"), "\r\n") {
			if _, _, _, ok := parseReplyLine(strings.TrimSuffix(line, "\r\n")); !ok {
				t.Errorf("malformed reply %q", line)
			}
		}
	})
}

// What a platform sends gets no credentials before TLS, and nothing of its own to the
// client but one clean line.
func FuzzAuthenticate(f *testing.F) {
	for _, seed := range []string{
		"220 x\r\n250-x\r\n250-SIZE\r\n250 AUTH PLAIN\r\n235 2.7.0 ok\r\n", "220 x\r\n250-x\r\n250-SIZE\r\n250 AUTH LOGIN\r\n334 \r\n334 \r\n535-5.7.8 no\r\n535 \x01\r\n",
		"220 x\r\n250-SIZE\r\n250 STARTTLS\r\n", "421 4.3.2 no\r\n", "220-x\r\n", "220 x\r\n250-x\r\n250-SIZE\r\n250 AUTH PLAIN\r\n334 \r\n334 \r\n",
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
		if encrypt && (got.Err == nil || got.Asked > 0 || strings.Contains(sent, "AUTH")) {
			t.Errorf("credentials in plain text: %q, %v", sent, got.Err)
		}
		if final := string(got.Welcome.Final); got.Err == nil && (!strings.HasPrefix(final, "235 ") || strings.ContainsAny(final, "\r\n\x00") || len(final) > maxText+20) {
			t.Errorf("answer %q", final)
		}
	})
}
