package spool

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/mail"
)

var kills = flag.Int("spool.kills", 20, "how often a process that fills a spool is killed")

const killDir = "SPOOL_KILL_DIR"

// TestKilledProcess kills a process that accepts and delivers as fast as it can, on the
// real disk, and starts again on what it left: what it had acknowledged is there, whole,
// and what it had recorded as delivered isn't.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		beKilled(t, dir)
		return
	}
	dir := t.TempDir()
	there := map[string]bool{} // true: acknowledged; false: and recorded as delivered
	accepted := 0
	for range *kills {
		child := exec.Command(os.Args[0], "-test.run", "^TestKilledProcess$")
		child.Env = append(os.Environ(), killDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		pause := time.Duration(rand.IntN(120)) * time.Millisecond
		lines := bufio.NewScanner(out)
		var killed *time.Timer
		maybe := map[string]bool{}
		for lines.Scan() {
			word, id, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "open":
				killed = time.AfterFunc(pause, func() { child.Process.Kill() })
			case "accepted":
				there[id] = true
				accepted++
			case "delivering":
				maybe[id] = true
			case "delivered":
				there[id] = false
			}
		}
		child.Wait()
		if killed == nil {
			t.Fatal("the process did not open the spool")
		}
		killed.Stop()
		s := openStore(t, Options{Dir: dir})
		for id, want := range there {
			text, err := readBody(t, s, mail.TransactionID(id))
			if is := err == nil; is != want && !(maybe[id] && want) {
				t.Errorf("message %s: there %t, want %t: %v", id, is, want, err)
			} else if is && !strings.HasPrefix(text, id) {
				t.Errorf("message %s has the body of another", id)
			}
			if err != nil {
				delete(there, id)
			}
		}
		if p := s.Status().Opened.Problems; len(p) > 1 { // one torn record at the end
			t.Errorf("problems: %v", p)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d messages accepted", *kills, accepted)
	if accepted == 0 {
		t.Error("nothing was accepted")
	}
}

// beKilled is the process.
func beKilled(t *testing.T, dir string) {
	s := openStore(t, Options{Disk: durable.OS{}, Dir: dir, SegmentBytes: 256 << 10})
	fmt.Println("open")
	var mu sync.Mutex
	say := func(word string, id mail.TransactionID) {
		mu.Lock()
		defer mu.Unlock()
		os.Stdout.WriteString(word + " " + string(id) + "\n")
	}
	var working sync.WaitGroup
	for n := range 8 {
		working.Go(func() {
			for i := range 100_000 {
				env := envelope(t)
				in, err := s.Begin(env)
				if err != nil {
					return
				}
				size := 200
				if i%20 == 0 {
					size = 100_000
				}
				in.Write([]byte(strings.Repeat(string(env.Transaction), size/26)))
				if err := in.Commit(t.Context(), []Recipient{rcpt(fmt.Sprint(n), "health", StateHeld)}); err != nil {
					return
				}
				say("accepted", env.Transaction)
				in.Discard()
				if i%3 > 0 {
					say("delivering", env.Transaction)
					if err := s.Set(Outcome{Transaction: env.Transaction, State: StateDelivered}); err != nil {
						return
					}
					say("delivered", env.Transaction)
				}
			}
		})
	}
	working.Wait()
}
