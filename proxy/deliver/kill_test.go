package deliver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/spool"
)

// Environment of a child: the world's directory, and its platform's address.
const (
	childDir  = "DELIVER_TEST_DIR"
	childAddr = "DELIVER_TEST_ADDR"
)

// restLimit is the platform's connection limit in the test with kills.
const restLimit = 200 * time.Millisecond

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir, os.Getenv(childAddr))
		return
	}
	os.Exit(m.Run())
}

// childTB is what a child has for a test.
type childTB struct{ testing.TB }

func (childTB) Helper()           {}
func (childTB) Error(args ...any) { fmt.Println(args...) }
func (childTB) Fatal(args ...any) {
	fmt.Println(args...)
	os.Exit(1)
}

// child replays a spool until it is empty. It is killed now and then.
func child(dir, addr string) {
	w := newWorld(childTB{}, dir, restLimit, quick, endpoint{id: "exchange", addr: addr, connections: 4})
	w.run()
	for !w.empty() {
		time.Sleep(time.Millisecond)
	}
	w.close()
}

// TestKilledReplay kills a replay again and again, while its platform's answers get lost,
// too. Everything arrives, in order for each mailbox, and what arrives twice is what the
// ledger has in doubt.
func TestKilledReplay(t *testing.T) {
	const messages = 1500
	var dots atomic.Int64
	platform := start(t, platformtest.Options{})
	platform.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			if dots.Add(1)%200 == 0 {
				return platformtest.Reaction{Drop: platformtest.DropBefore}
			}
		}
		return platformtest.Reaction{}
	})
	dir := t.TempDir()
	w := newWorld(t, dir, restLimit, quick, endpoint{id: "exchange", addr: platform.Addr()})
	ids := make([]mail.TransactionID, messages)
	for i := range messages {
		ids[i] = w.put(spool.StateHeld, fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i), i%20)
	}
	w.close()

	kills := 0
	for deadline := time.Now().Add(5 * time.Minute); ; {
		if time.Now().After(deadline) {
			t.Fatalf("not done after %d kills: %d of %d", kills, len(platform.Stored()), messages)
		}
		var out bytes.Buffer
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir, childAddr+"="+platform.Addr())
		cmd.Stdout, cmd.Stderr = &out, &out
		before := len(platform.Stored())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		if kills < 12 { // in the middle of its work
			ctx, n := t.Context(), before+20+rand.N(100)
			if _, err := platform.WaitStored(ctx, min(n, messages)); err != nil {
				t.Fatal(err)
			}
			kills++
			_ = cmd.Process.Kill()
			<-done
			if out.Len() > 0 {
				t.Fatalf("child says: %s", out.String())
			}
			continue
		}
		if err := <-done; err != nil || out.Len() > 0 {
			t.Fatalf("child: %v: %s", err, out.String())
		}
		break
	}

	copies := make([]int, messages)
	last := make(map[string]int)
	for _, s := range platform.Stored() {
		text, _, _ := strings.Cut(strings.TrimPrefix(string(s.Body()), "Subject: "), "\r\n")
		i, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("a message that nobody sent: %q", s.Body())
		}
		copies[i]++
		rcpt := s.Accepted()[0]
		if rcpt != string(address(i%20)) {
			t.Errorf("message %d went to %s", i, rcpt)
		}
		if i < last[rcpt] {
			t.Errorf("%s got %d after %d", rcpt, i, last[rcpt])
		}
		last[rcpt] = i
	}
	w = newWorld(t, dir, restLimit, quick, endpoint{id: "exchange", addr: platform.Addr()})
	defer w.close()
	doubts := make(map[mail.TransactionID]int)
	for _, r := range w.records() {
		if result := r.Answer(0).Result; result != ledger.ResultDelivered && result != ledger.ResultNotSent && result != ledger.ResultRefused {
			doubts[r.Transaction]++
		}
	}
	twice := 0
	for i, n := range copies {
		if n == 0 {
			t.Errorf("message %d is lost", i)
		}
		if n-1 > doubts[ids[i]] {
			t.Errorf("message %d arrived %d times, the ledger has it in doubt %d times", i, n, doubts[ids[i]])
		}
		twice += max(n-1, 0)
	}
	t.Logf("%d messages, %d kills, %d duplicates, %d of the messages in doubt", messages, kills, twice, len(doubts))
	if twice == 0 {
		t.Error("no duplicates, so nothing was shown")
	}
}
