package relay

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// A mailbox is asked for once, however many of its names a transaction has, and each of
// them gets the answer.
func TestOneMailboxIsAskedForOnce(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("lmtp=%t/together=%t", lmtp, together), func(t *testing.T) {
				peer := startPeer(t, &peer{lmtp: lmtp, answer: func(_ *session, verb, line string) string {
					switch {
					case verb == "RCPT" && strings.Contains(line, "<no@"):
						return "550 5.1.1 unknown"
					case verb == "." && line == "1":
						return "452 4.2.2 over quota"
					}
					return ""
				}})
				ep := endpoint(peer.addr)
				if lmtp {
					ep.Protocol = ProtocolLMTP
				}
				p := newPool(t, ep, Options{})
				ctx := testContext(t)
				tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Abort()
				names := []string{"b", "no", "c", "b", "no", "c", "b", "d"}
				var rcpts []Recipient
				for _, n := range names {
					rcpts = append(rcpts, Recipient{To: path(t, n+"@x.example")})
				}
				var errs []error
				if together {
					errs = tx.Rcpts(ctx, rcpts)
				} else {
					for _, r := range rcpts {
						errs = append(errs, tx.Rcpts(ctx, []Recipient{r})...)
					}
				}
				for i, n := range names {
					if (errs[i] != nil) != (n == "no") {
						t.Errorf("recipient %d: %v", i, errs[i])
					}
				}
				if len(tx.given) != 6 {
					t.Errorf("%d accepted", len(tx.given))
				}
				if err := tx.Data(ctx); err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Write([]byte("x\r\n")); err != nil {
					t.Fatal(err)
				}
				dots := tx.Finish(ctx)
				if lmtp {
					var codes []int
					for _, err := range dots {
						code := 250
						if err != nil {
							code = mail.AsReply(err).Code
						}
						codes = append(codes, code)
					}
					if !slices.Equal(codes, []int{250, 452, 250, 452, 250, 250}) {
						t.Errorf("dots %v", codes)
					}
					want := []string{"2.0.0 delivered 0", "4.2.2 over quota", "2.0.0 delivered 0", "4.2.2 over quota", "2.0.0 delivered 0", "2.0.0 delivered 2"}
					if !slices.Equal(tx.Replies(), want) {
						t.Errorf("replies %q", tx.Replies())
					}
				} else if len(dots) != 1 || dots[0] != nil {
					t.Errorf("dots %v", dots)
				}
				for _, n := range []string{"b", "c", "d"} {
					if got := strings.Count(peer.commands(), "RCPT TO:<"+n+"@"); got != 1 {
						t.Errorf("%s was asked for %d times: %s", n, got, peer.commands())
					}
				}
			})
		}
	}
}

// If the connection is lost, that is the answer for those too that another spoke for.
func TestNamesOfAMailboxFailTogether(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, line string) string {
		if verb == "RCPT" && strings.Contains(line, "<c@") {
			return cut
		}
		return ""
	}})
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx := testContext(t)
	tx := open(ctx, t, p)
	defer tx.Abort()
	b, c := Recipient{To: path(t, "b@x.example")}, Recipient{To: path(t, "c@x.example")}
	if err := tx.Rcpts(ctx, []Recipient{b})[0]; err != nil {
		t.Fatal(err)
	}
	for i, err := range tx.Rcpts(ctx, []Recipient{b, c, c}) {
		var ce *ConnectionError
		if !errors.As(err, &ce) {
			t.Errorf("recipient %d: %v", i, err)
		}
	}
}

// What each name of a mailbox wants to be told of is asked for.
func TestNoticesOfOneMailbox(t *testing.T) {
	notify := func(words string) (o gosmtp.RcptOptions) {
		for _, w := range strings.Fields(words) {
			o.Notify = append(o.Notify, gosmtp.DSNNotify(w))
		}
		return o
	}
	for _, c := range []struct {
		first, second string
		together      string // NOTIFY, if both come at once
		again         bool   // the platform is asked again, if the second comes later
	}{
		{"", "", "", false},
		{"", "FAILURE", "", false},
		{"", "DELAY", "FAILURE,DELAY", false},
		{"", "NEVER", "", false},
		{"", "SUCCESS", "SUCCESS,FAILURE,DELAY", true},
		{"NEVER", "", "", true},
		{"NEVER", "NEVER", "NEVER", false},
		{"NEVER", "SUCCESS", "SUCCESS", true},
		{"FAILURE", "", "FAILURE,DELAY", false},
		{"FAILURE", "DELAY", "FAILURE,DELAY", true},
		{"SUCCESS", "FAILURE", "SUCCESS,FAILURE", true},
		{"SUCCESS FAILURE", "SUCCESS", "SUCCESS,FAILURE", false},
	} {
		for _, dsn := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%s/dsn=%t", c.first, c.second, dsn), func(t *testing.T) {
				peer := startPeer(t, &peer{ehlo: []string{"PIPELINING", "DSN"}})
				if !dsn {
					peer.ehlo = []string{"PIPELINING"}
				}
				p := newPool(t, endpoint(peer.addr), Options{})
				ctx := testContext(t)
				first, second := Recipient{To: path(t, "b@x.example"), Options: notify(c.first)}, Recipient{To: path(t, "b@x.example"), Options: notify(c.second)}
				first.Options.OriginalRecipientType, first.Options.OriginalRecipient = "rfc822", "first"
				second.Options.OriginalRecipientType, second.Options.OriginalRecipient = "rfc822", "second"

				tx := open(ctx, t, p)
				tx.Rcpts(ctx, []Recipient{first, second})
				tx.Abort()
				want := "RCPT TO:<b@x.example>"
				if dsn {
					if c.together != "" {
						want += " NOTIFY=" + c.together
					}
					who := "first"
					if c.first == "NEVER" {
						who = "second"
					}
					want += " ORCPT=rfc822;" + who
				}
				if got := peer.commands(); !strings.Contains(got+";", ";"+want+";") || strings.Count(got, "RCPT TO") != 1 {
					t.Errorf("together: %s, want %s", got, want)
				}
				if len(first.Options.Notify) != len(strings.Fields(c.first)) {
					t.Errorf("the caller's options are now %v", first.Options.Notify)
				}

				tx = open(ctx, t, p)
				tx.Rcpts(ctx, []Recipient{first})
				errs := tx.Rcpts(ctx, []Recipient{second})
				tx.Abort()
				n := 2 // with that from before
				if c.again && dsn {
					n = 3
				}
				if got := peer.commands(); strings.Count(got, "RCPT TO") != n || errs[0] != nil {
					t.Errorf("one after the other: %v, %s", errs, got)
				}
			})
		}
	}
}
