package peers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
)

// What the tests of mailcutover build on: Postfix sends a message for several domains in
// one transaction, says who its client was, and tries again only for the recipient that
// had to wait.
func TestMXAsAPlatformSeesIt(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		t.Run(fmt.Sprintf("LMTP %v", lmtp), func(t *testing.T) {
			Need(t, "postfix", "swaks")
			closed := true
			platform, err := platformtest.Start(platformtest.Options{
				LMTP:       lmtp,
				Extensions: append([]string{"XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"}, platformtest.DefaultExtensions...),
				Script: func(c platformtest.Command) platformtest.Reaction {
					if c.Verb == "RCPT" && strings.Contains(c.Line, "ben@roads.example") && closed {
						closed = false // Postfix has one connection at a time here
						return platformtest.Reaction{Reply: "451 4.3.2 Being cut over"}
					}
					return platformtest.Reaction{}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer platform.Close()
			mx := StartMX(t, MXOptions{NextHop: platform.Addr(), LMTP: lmtp})
			out, status := Swaks(t, "--server", mx.Addr, "--helo", "out.example", "--from", "a@out.example",
				"--to", "anna@health.example,ben@roads.example,carl@health.example", "--body", "id 4711")
			if status != 0 {
				t.Fatalf("swaks: exit status %d\n%s", status, out)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stored, err := platform.WaitStored(ctx, 2)
			if err != nil {
				t.Fatal(err)
			}
			first, second := stored[0], stored[1]
			if len(first.Rcpts) != 3 || fmt.Sprint(first.Accepted()) != "[anna@health.example carl@health.example]" {
				t.Errorf("first transaction: %+v", first.Rcpts)
			}
			if fmt.Sprint(second.Accepted()) != "[ben@roads.example]" {
				t.Errorf("second transaction: %+v", second.Rcpts)
			}
			if first.XForward["ADDR"] != "127.0.0.1" || first.XForward["HELO"] != "out.example" {
				t.Errorf("XFORWARD %v", first.XForward)
			}
			if cr, lf := first.BareLineEnds(); cr+lf != 0 || !strings.Contains(string(first.Body()), "id 4711\r\n") {
				t.Errorf("message %q", first.Body())
			}
			WaitFor(t, time.Minute, "empty queue", func() bool { return mx.QueueEmpty(t) })
		})
	}
}
