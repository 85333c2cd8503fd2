package retained

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/internal/seal"
)

var kills = flag.Int("kills", 3, "how often TestKill kills a process")

// Set for the process that TestKill kills: its folder, and the keys.
const (
	childDir  = "RETAINED_TEST_CHILD_DIR"
	childKeys = "RETAINED_TEST_CHILD_KEYS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// child keeps copies until it is killed. It says which after each Keep, in one write(2) each: what
// the parent read was kept.
func child(dir string) {
	k, err := seal.ParseKeys(os.Getenv(childKeys))
	if err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	s, err := Open(Options{Dir: dir, SegmentBytes: 500_000, Keys: k, Patience: time.Hour}) // what is said to be kept was
	if err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				n := 100 + rand.IntN(5000)
				if rand.IntN(10) == 0 {
					n = 60_000 + rand.IntN(100_000)
				}
				body := text(n)
				m := put(s, body, to("health", "dora")...)
				sum := sha256.Sum256(body)
				os.Stdout.WriteString("K " + string(m.Transaction) + " " + hex.EncodeToString(sum[:]) + "\n")
			}
		})
	}
	all.Wait()
}

// A real process is killed under load, again and again in one folder: each copy whose sender
// would have been told 250 is there and whole, and nothing else is broken.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "retained")
	line := seal.NewKey("test")
	kept := map[string]string{}
	for k := range *kills {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childDir+"="+dir, childKeys+"="+line)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		until := 50 + rand.IntN(400)
		for n := 0; lines.Scan(); n++ {
			parts := strings.Fields(lines.Text())
			if len(parts) != 3 || parts[0] != "K" {
				t.Fatalf("child: %s", lines.Text())
			}
			kept[parts[1]] = parts[2]
			if n == until { // what it wrote before it died is read to the end
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		s := open(t, Options{Dir: dir, Keys: keys(t, line)})
		left := len(kept)
		for _, c := range find(t, s, Query{Agency: "health"}) {
			b, err := s.Open(&c)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, b); err != nil {
				t.Errorf("kill %d: %v", k, err)
			}
			b.Close()
			if want, ok := kept[string(c.Transaction)]; ok {
				left--
				if got := hex.EncodeToString(sum.Sum(nil)); got != want {
					t.Errorf("kill %d: copy %s has another content", k, c.Transaction)
				}
			}
		}
		if left != 0 {
			t.Errorf("kill %d: %d copies of %d are not there", k, left, len(kept))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d copies", len(kept))
}
