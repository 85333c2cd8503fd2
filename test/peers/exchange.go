package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Exchange is the Exchange-like platform of test/exchangelike, a process of its own. It
// is built from this module: it needs nothing installed, and SKIP_PEERS=1 doesn't skip it.
type Exchange struct {
	*Process
	Addr   string // host and port
	record string
}

// ExchangeRecord is a message that it answered 250.
type ExchangeRecord struct {
	Time      time.Time `json:"time"`
	Port      int       `json:"port"` // the client's
	From      string    `json:"from"`
	Rcpts     []string  `json:"rcpts"`         // that were answered 250
	Delivered []string  `json:"delivered"`     // those of them whose mailbox got it; with -dedupe not always all
	MessageID string    `json:"message_id"`    // empty if it had none
	Size      int64     `json:"size"`          // in bytes, as received
	SHA256    string    `json:"sha256"`        // as received, in hex
	Stored    string    `json:"stored_sha256"` // as stored; with -rewrite another
	Body      []byte    `json:"body"`          // as stored, with -bodies
}

// exchangeBinary builds the program, once in a test process; it is kept in memory, so
// that nothing is left behind.
var exchangeBinary = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "mc-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file, err := Build(context.Background(), dir, "./test/exchangelike", false)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
})

// StartExchange starts it with the quirks that the flags ask for, such as "-tarpit",
// "5s"; test/exchangelike has the list.
func StartExchange(t TB, flags ...string) *Exchange {
	t.Helper()
	binary, err := exchangeBinary()
	if err != nil {
		t.Fatalf("Exchange-like platform: %v", err)
	}
	dir := tempDir(t, "exchange")
	program := filepath.Join(dir, "exchangelike")
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatalf("Exchange-like platform: %v", err)
	}
	e := &Exchange{Addr: freeAddr(t), record: filepath.Join(dir, "record")}
	args := append([]string{"-listen", e.Addr, "-record", e.record}, flags...)
	// Ready when it says so: a connection of our own would count for -max-per-source.
	e.Process = &Process{
		name: "exchangelike", addr: e.Addr, says: "listening ", out: &tail{max: logKept},
		make: func() *exec.Cmd { return exec.Command(program, args...) },
	}
	e.own(t)
	return e
}

// Records returns what it answered 250 so far, in order; a restart doesn't forget it.
func (e *Exchange) Records(t TB) []ExchangeRecord {
	t.Helper()
	b, err := os.ReadFile(e.record)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read the record of the Exchange-like platform: %v", err)
	}
	// A line is written at once, but may be seen in part.
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	var records []ExchangeRecord
	lines := bufio.NewReader(bytes.NewReader(b))
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return records
		}
		var r ExchangeRecord
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("read the record of the Exchange-like platform: %v", err)
		}
		records = append(records, r)
	}
}

// Fired returns how often a quirk showed, since the last 256 KiB of its output began:
// "max-per-source", "idle", "total", "432", "452", "unknown" or "dedupe". A test looks at it so that it
// can't pass because nothing went wrong.
func (e *Exchange) Fired(quirk string) int {
	n := 0
	for line := range strings.Lines(e.Output()) {
		if line == "quirk "+quirk+"\n" {
			n++
		}
	}
	return n
}

// Delivered returns the messages that the mailbox got.
func (e *Exchange) Delivered(t TB, mailbox string) []ExchangeRecord {
	t.Helper()
	return slices.DeleteFunc(e.Records(t), func(r ExchangeRecord) bool { return !slices.Contains(r.Delivered, mailbox) })
}

// WaitRecords waits until it answered n messages with 250, at most 90 s, and returns them.
func (e *Exchange) WaitRecords(t TB, n int) []ExchangeRecord {
	t.Helper()
	var records []ExchangeRecord
	WaitFor(t, 90*time.Second, fmt.Sprintf("%d messages at the Exchange-like platform", n), func() bool {
		records = e.Records(t)
		return len(records) >= n
	})
	return records
}
