package daemon

import (
	"net/http"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/routing"
)

// A node that people take out for maintenance takes no new mail, ends what is under way,
// and then gives its lease up; afterwards it works again.
func TestDrainForMaintenance(t *testing.T) {
	t.Parallel()
	b := newBenchWith(t, "lease: {renew: 50ms}")
	b.send(b.a)
	release := make(chan struct{})
	b.a.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			<-release
		}
		return platformtest.Reaction{}
	})
	say := b.dialogue()
	for _, line := range []struct {
		text string
		code int
	}{{"", 220}, {"EHLO client.example", 250}, {"MAIL FROM:<s@elsewhere.example>", 250}, {"RCPT TO:<anna@health.example>", 250}, {"DATA", 354}, {"Subject: test\r\n\r\nbody\r\n.", 0}} {
		say(line.text, line.code)
	}
	b.until("a dot under way", func() bool { return b.gate.Load("health").Dotted == 1 })
	if _, err := b.api.DrainNode(t.Context(), "mx1.example", true, "new disks"); err != nil {
		t.Fatal(err)
	}
	ready := func() int {
		r, err := http.Get("http://" + b.AdminAddr().String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	b.until("not ready", func() bool { return ready() == http.StatusServiceUnavailable })
	if d := b.gate.Address("anna@health.example"); d.Reason != routing.ReasonTableUnavail {
		t.Errorf("new work while draining: %+v", d)
	}
	renewed := b.lease("mx1.example").Counter
	b.until("more renewals", func() bool { return b.lease("mx1.example").Counter > renewed+3 })
	if l := b.lease("mx1.example"); l.LongEnd.IsZero() {
		t.Error("the lease is given up with a dot under way")
	}
	close(release)
	say("", 250) // begun before: it ends well
	b.until("the lease given up", func() bool { return b.lease("mx1.example").LongEnd.IsZero() })
	b.until("the alarm of a node that rests, alone", func() bool { // others come and go with a renewal that fails
		troubles := b.keeper.Troubles()
		return len(troubles) == 1 && troubles["node-draining"] != ""
	})
	b.a.SetScript(nil)
	if _, err := b.api.DrainNode(t.Context(), "mx1.example", false, "disks are in"); err != nil {
		t.Fatal(err)
	}
	b.until("ready again", func() bool { return ready() == http.StatusOK })
	if l := b.lease("mx1.example"); !l.LongEnd.After(time.Now()) {
		t.Errorf("lease %+v", l)
	}
	b.send(b.a)
}
