package relay

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"mailcutover/proxy/dial"
)

// Auth are the credentials that a platform wants (RFC 4954). They are sent over TLS
// with a verified certificate, or to a loopback address, and nowhere else, and
// stand in no error and no log.
type Auth struct {
	// Mechanism is PLAIN or LOGIN; empty: the first of the two that is announced.
	Mechanism string

	Username string

	// Password is asked for every new connection, so that a changed one is used
	// without a restart.
	Password func() (string, error)
}

func (a *Auth) validate(bad func(key string, value any, right string)) {
	if a.Mechanism != "" && a.Mechanism != "PLAIN" && a.Mechanism != "LOGIN" {
		bad("auth mechanism", fmt.Sprintf("%q", a.Mechanism), "want PLAIN, LOGIN or empty")
	}
	if a.Username == "" || strings.ContainsRune(a.Username, 0) {
		bad("auth username", fmt.Sprintf("%q", a.Username), "want a name without NUL")
	}
	if a.Password == nil {
		bad("auth password", "none", "want a secret")
	}
}

// authenticate logs in to the platform.
func (p *Pool) authenticate(c *conn) error {
	a := p.ep.Auth
	if !c.verified && !dial.Loopback(c.raw.RemoteAddr()) {
		return fmt.Errorf("%w: refusing to send credentials without verified TLS", ErrNeedsOperator)
	}
	mechanism := ""
	for _, m := range []string{"PLAIN", "LOGIN"} {
		if mechanism == "" && (a.Mechanism == "" || a.Mechanism == m) && slices.Contains(c.caps.auth, m) {
			mechanism = m
		}
	}
	if mechanism == "" {
		return fmt.Errorf("%w: platform announces %q, configured is %q", errNoAuth, c.caps.auth, a.Mechanism)
	}
	password, err := a.Password()
	if err != nil {
		return fmt.Errorf("%w: get the password: %w", ErrNeedsOperator, err)
	}
	if password == "" || strings.ContainsRune(password, 0) {
		return fmt.Errorf("%w: password is empty or has a NUL", ErrNeedsOperator)
	}
	// Each step is what is sent; 334 has to come before the next, 235 after the last.
	plain := encode("\x00" + a.Username + "\x00" + password) // RFC 4616
	steps := []string{"AUTH PLAIN " + plain}
	switch {
	case mechanism == "LOGIN":
		steps = []string{"AUTH LOGIN", encode(a.Username), encode(password)}
	case len(steps[0]) > 510: // RFC 4954 section 4
		steps = []string{"AUTH PLAIN", plain}
	}
	for i, line := range steps {
		want := 334
		if i == len(steps)-1 {
			want = 235
		}
		code, err := c.command(line, p.ep.Timeouts.Command)
		if err != nil {
			return err
		}
		if code == want {
			continue
		}
		r := p.refused(c, "AUTH", code)
		for _, secret := range []string{password, encode(password), plain} {
			if strings.Contains(string(c.reply.text), secret) {
				r.Reply.Message = "(text withheld: it repeats the credentials)"
			}
		}
		return r
	}
	return nil
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
