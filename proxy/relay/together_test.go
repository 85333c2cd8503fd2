package relay

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"mailcutover/mail"
)

// A message that is at hand goes in three writes, however many recipients it has, and its
// dot is one of them.
func TestTogetherOnTheWire(t *testing.T) {
	many := make([]string, maxPipelined+1)
	for i := range many {
		many[i] = fmt.Sprintf("r%d@x.example", i)
	}
	for name, c := range map[string]struct {
		ehlo, to []string
		want     int // writes behind EHLO
	}{
		"one":            {to: many[:1], want: 3},
		"two":            {to: many[:2], want: 3},
		"two batches":    {to: many, want: 4},
		"not pipelining": {ehlo: []string{"HELP"}, to: many[:2], want: 6},
	} {
		t.Run(name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: c.ehlo})
			o, writes := tapped(nil)
			p := newPool(t, endpoint(peer.addr), o)
			out := deliverAs(testContext(t), t, p, true, mail.Client{}, nil, "hi\r\n", c.to...)
			if err := out.err(); err != nil {
				t.Fatal(err)
			}
			got := writes()[1:]
			if len(got) != c.want || got[len(got)-1] != "\r\n.\r\n" {
				t.Errorf("writes %q", got)
			}
			if got := peer.bodies(); !slices.Equal(got, []string{"hi\r\n"}) {
				t.Errorf("the platform has %q", got)
			}
		})
	}
}

// Whatever a platform answers to a DATA that it had before it took a recipient: each
// recipient has its answer, and no message comes to be.
func TestTogetherRefused(t *testing.T) {
	const never, later = "550 5.1.1 nobody", "450 4.2.0 later"
	for name, c := range map[string]struct {
		answers map[string]string
		rcpts   []int // codes; 0: taken
		data    int
		conns   int // that a next message finds: 1 if the one was kept
	}{
		"all, and DATA":             {map[string]string{"RCPT": never, "DATA": "503 5.5.1 no recipients"}, []int{550, 550}, 0, 1},
		"all, and DATA not":         {map[string]string{"RCPT": never}, []int{550, 550}, 0, 2},
		"all for now, and DATA not": {map[string]string{"RCPT": later}, []int{450, 450}, 0, 2},
		"one":                       {map[string]string{"RCPT TO:<b@x.example>": never}, []int{550, 0}, 0, 1},
		"MAIL":                      {map[string]string{"MAIL": "452 4.3.1 full", "RCPT": "503 5.5.1 no", "DATA": "503 5.5.1 no"}, []int{452, 452}, 0, 1},
		"DATA":                      {map[string]string{"DATA": "451 4.3.0 not now"}, []int{0, 0}, 451, 1},
		"DATA for good":             {map[string]string{"DATA": "554 5.7.1 never"}, []int{0, 0}, 554, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var again atomic.Bool
			peer := startPeer(t, &peer{answer: func(_ *session, verb, line string) string {
				switch {
				case again.Load():
					return ""
				case c.answers[line] != "":
					return c.answers[line]
				}
				return c.answers[verb]
			}})
			p := newPool(t, endpoint(peer.addr), Options{})
			out := deliverAs(testContext(t), t, p, true, mail.Client{}, nil, "hi\r\n", "b@x.example", "c@x.example")
			for i, want := range c.rcpts {
				if err := out.rcpts[i]; want == 0 && err != nil || want != 0 && mail.AsReply(err).Code != want {
					t.Errorf("recipient %d: %v, want %d", i, err, want)
				}
			}
			if want := c.data; want == 0 && out.data != nil || want != 0 && mail.AsReply(out.data).Code != want {
				t.Errorf("DATA: %v, want %d", out.data, want)
			}
			had := 0
			if c.rcpts[1] == 0 && c.data == 0 {
				had = 1
			}
			if n := len(peer.bodies()); n != had {
				t.Errorf("the platform has %d messages, want %d", n, had)
			}
			again.Store(true)
			if err := deliverAs(testContext(t), t, p, true, mail.Client{}, nil, "again\r\n", "b@x.example").err(); err != nil {
				t.Errorf("the next message: %v", err)
			}
			if n := len(peer.sessions()); n != c.conns {
				t.Errorf("%d connections, want %d", n, c.conns)
			}
		})
	}
}
