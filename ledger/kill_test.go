package ledger

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/mail"
)

var kills = flag.Int("kills", 5, "how often TestKill kills a process")

// childDir is set for the process that TestKill kills.
const childDir = "LEDGER_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// child delivers until it is killed. It says after each Intend and each Outcome what it
// did; each line is one write(2), so what the parent read, did happen.
func child(dir string) {
	l, err := Open(Options{Dir: dir, Boot: "1", SegmentBytes: 200_000, SyncEvery: 20 * time.Millisecond})
	if err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	for _, i := range l.InDoubt() {
		os.Stdout.WriteString("D " + string(i.Transaction) + "\n")
	}
	os.Stdout.WriteString("S\n")
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			t := newTraffic(uint64(n))
			for {
				i := t.intent()
				i.Time = time.Time{}
				ticket, err := l.Intend(i)
				if err != nil {
					os.Stdout.WriteString("E " + err.Error() + "\n")
					return
				}
				os.Stdout.WriteString("I " + string(i.Transaction) + "\n")
				l.Outcome(ticket, t.answer(i))
				os.Stdout.WriteString("O " + string(i.Transaction) + "\n")
			}
		})
	}
	all.Wait()
}

// A real process is killed under load, again and again in one folder: what it was about
// to send and had no answer for is in doubt, what it had noted is there, and nothing is
// unknown.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	intended := map[mail.TransactionID]bool{}
	ended := map[mail.TransactionID]bool{}
	doubtful := 0
	for k := range *kills {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		until := 500 + rand.IntN(10000)
		for n := 0; lines.Scan(); n++ {
			what, id, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "I":
				intended[mail.TransactionID(id)] = true
			case "O":
				ended[mail.TransactionID(id)] = true
			case "E":
				t.Fatalf("child: %s", id)
			}
			if n == until { // what it wrote before it died is read to the end
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed

		l, err := Open(Options{Dir: dir, Boot: "1"})
		if err != nil {
			t.Fatal(err)
		}
		if since, unknown := l.Unknown(); unknown {
			t.Errorf("kill %d: unknown since %v", k, since)
		}
		doubt := map[mail.TransactionID]bool{}
		for _, i := range l.InDoubt() {
			doubt[i.Transaction] = true
			if ended[i.Transaction] {
				t.Errorf("kill %d: %s had an outcome, and is in doubt", k, i.Transaction)
			}
		}
		found := map[mail.TransactionID]Result{}
		for r, err := range l.Find(t.Context(), Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			found[r.Transaction] = r.Answer(0).Result
		}
		for id := range intended {
			switch got := found[id]; {
			case ended[id] && got != ResultDelivered,
				doubt[id] && got != ResultInDoubt,
				!doubt[id] && got != ResultDelivered:
				t.Errorf("kill %d: %s ended %t, in doubt %t, found %q", k, id, ended[id], doubt[id], got)
			}
		}
		doubtful = len(doubt)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d intents, %d outcomes, %d in doubt", len(intended), len(ended), doubtful)
	if len(ended) == 0 || doubtful == 0 {
		t.Error("nothing was under way when the process was killed")
	}
}
