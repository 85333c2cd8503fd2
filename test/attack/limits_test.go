package attack

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Q10, I19: a node that may have few descriptors takes as many strangers as leave it enough for
// its own work: mail of those who are in goes on, through the spool too, and the API answers.
// When they are gone all is as before.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	s := setup{shell: "ulimit -n 256"}
	growth := int64(512 << 20) // with the race detector
	if *slow {
		s.plain, s.shell, s.env, growth = true, "ulimit -n 256 && ulimit -d 1048576", []string{"GOMEMLIMIT=256MiB"}, 128<<20
	}
	f := start(t, s)
	honest := f.mustDial(t, "mx")
	message := func(n int) error {
		if err := honest.send(fmt.Sprintf("MAIL FROM:<n%d@out.example>\r\nRCPT TO:<anna@exchange.example>\r\nRCPT TO:<anna@ox.example>\r\nDATA\r\n", n)); err != nil {
			return err
		}
		if said, err := honest.until("354 "); err != nil {
			return fmt.Errorf("%q: %w", said, err)
		}
		if err := honest.send("Subject: honest\r\n\r\n.\r\n"); err != nil {
			return err
		}
		line, err := honest.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "250 ") {
			return fmt.Errorf("answered %q, %w", line, err)
		}
		return nil
	}
	err := honest.greet(upgrades[4])
	if err == nil {
		err = message(0)
	}
	if err != nil {
		t.Fatal(err)
	}
	before, memory := f.descriptors(), f.status("VmRSS")

	// Each says as much as it may without an end of a line.
	var flood []*wire
	release := func() {
		for _, w := range flood {
			w.conn.Close()
		}
		flood = nil
	}
	defer release()
	taken := 0
	ids := []string{"mx", "mx-lmtp", "mxs", "imap", "imaps", "submission", "pop3", "sieve", "page", "autoconfig"}
	for i := range 600 {
		w, err := dial(f.addrs[ids[i%len(ids)]], fmt.Sprintf("127.1.%d.%d", i/200, 1+i%200))
		if err != nil {
			t.Fatal(err)
		}
		flood = append(flood, w)
		_ = w.send(strings.Repeat("x", 4000)) // perhaps it is gone already
	}
	most := 0
	for n := 1; n <= 5; n++ {
		most = max(most, f.descriptors())
		if err := message(n); err != nil {
			t.Errorf("message %d of one who is in: %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := f.get(ctx, "/readyz"); err != nil {
			t.Errorf("the API, with strangers at the door: %v", err)
		}
		cancel()
	}
	for _, w := range flood {
		_ = w.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, ended := w.rest(); !ended {
			taken++
		}
	}
	grown := f.status("VmHWM") - memory
	t.Logf("%d of %d strangers are in; %d descriptors of 256, before %d; %d MiB more at most", taken, len(flood), most, before, grown>>20)
	if taken < 20 {
		t.Errorf("only %d are in", taken)
	}
	if grown > growth {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if strings.Contains(f.Output(), "too many open files") {
		t.Error("the node has run out of descriptors")
	}
	release()
	waitFor(t, "descriptors as before", func() bool { return f.descriptors() <= before+10 })
	for _, u := range upgrades {
		w := f.mustDial(t, u.id)
		if err := w.greet(u); err != nil {
			t.Errorf("%s, afterwards: %v", u.id, err)
		}
		w.conn.Close()
	}
	waitFor(t, "all mail to be delivered", func() bool {
		return len(f.platforms["exchange"].mail.Stored()) == 6 && len(f.platforms["ox"].mail.Stored()) == 6
	})
}
