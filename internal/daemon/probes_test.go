package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
)

// checked returns the checks of a plan whose names begin so, one line each.
func (b *bench) checked(kind operation.Kind, names ...string) string {
	b.t.Helper()
	p, err := b.runner.Plan(b.t.Context(), operation.Request{Kind: kind, Agency: "health", Who: "tester", Reason: "test"})
	if err != nil {
		b.t.Fatal(err)
	}
	var all strings.Builder
	for _, c := range p.Checks {
		for _, name := range names {
			if strings.HasPrefix(c.Name, name) {
				mark := "REFUSES "
				switch {
				case c.OK:
					mark = "ok "
				case c.Informs:
					mark = "note "
				}
				all.WriteString(mark + c.Name + ": " + c.Text + "\n")
			}
		}
	}
	return all.String()
}

func contains(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
}

// A plan asks both platforms, outside and inside, whether they would take the agency's mail,
// and leaves none there.
func TestPlanProbesMail(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.arm()
	contains(t, b.checked(operation.Cutover, "probe", "canary"),
		"ok probe of exchange, outside: "+b.a.Addr()+" takes mail for 1 mailboxes of health", "ok probe of exchange, inside: ",
		"ok probe of ox, outside: ", "ok probe of ox, inside: ", "note canary of health: none is configured")
	b.b.SetScript(platformtest.On("RCPT", platformtest.Reaction{Reply: "550 5.1.1 no such user"}))
	contains(t, b.checked(operation.Cutover, "probe"), "REFUSES probe of ox, outside: ", "no such user", "ok probe of exchange, outside")
	// The source is probed by a mailbox of its own, whatever it says to the agency's.
	b.a.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == "RCPT" && !strings.Contains(c.Line, "probe@exchange.example") {
			return platformtest.Reaction{Reply: "550 5.1.1 no such user"}
		}
		return platformtest.Reaction{}
	})
	b.onA = ", probe: {address: probe@exchange.example}"
	b.write(b.a.Addr(), "")
	if _, err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	contains(t, b.checked(operation.Cutover, "probe"), "ok probe of exchange, outside: "+b.a.Addr()+" takes mail for the mailbox for probes")
	b.b.Close()
	contains(t, b.checked(operation.Cutover, "probe"), "REFUSES probe of ox, outside: ")
	if n := len(b.a.Stored()) + len(b.b.Stored()); n > 0 {
		t.Errorf("%d messages were delivered", n)
	}
}

// A plan logs in at both platforms by IMAP, and says where it can't.
func TestPlanProbesLogins(t *testing.T) {
	t.Parallel()
	b, dovecots := newLoginBench(t, listeners, "")
	b.arm()
	for _, d := range dovecots {
		peersReady(t, d.IMAP)
	}
	contains(t, b.checked(operation.Cutover, "probe login"), "note probe login at exchange: no mailbox for a probe login at exchange is not configured", "note probe login at ox: ")
	right, wrong := filepath.Join(t.TempDir(), "right"), filepath.Join(t.TempDir(), "wrong")
	for name, text := range map[string]string{right: "secret\n", wrong: "hunter2\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.onA += `, probe: {login: probe@exchange.example, password_file: "` + right + `"}`
	b.onB += `, probe: {login: probe@ox.example, password_file: "` + wrong + `"}`
	b.write(b.a.Addr(), listeners)
	if _, err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := b.checked(operation.Cutover, "probe login")
	contains(t, got, "ok probe login at exchange: "+dovecots[0].IMAP+" let probe@exchange.example in", "REFUSES probe login at ox: ", "AUTHENTICATIONFAILED")
	if strings.Contains(got, "hunter2") {
		t.Errorf("a password in %s", got)
	}
	if _, err := b.operate(operation.Cutover); err != nil {
		t.Fatal(err)
	}
	contains(t, b.checked(operation.Rollback, "probe login"), "note probe login at ox: ", "ok probe login at exchange: ")
}

// peersReady waits until addr listens: a Dovecot opens its ports one after the other.
func peersReady(t *testing.T, addr string) {
	t.Helper()
	until(t, addr+" to listen", func() bool {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
}
