package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

// small is a run that shows that everything can be measured, not what comes of it.
func small(t *testing.T) options {
	return options{rounds: 1, turn: 50 * time.Millisecond, warmUp: 40, idle: 40, nodes: 1, settle: 200 * time.Millisecond, entries: 400, agencies: 2, mailboxes: 50, held: []int{500}, starts: 500, large: 1000, clusters: []int{2}, progress: t.Output()}
}

// Every part runs on this machine, through the real programs.
func TestParts(t *testing.T) {
	peers.Need(t, "smtp-source", "smtp-sink", "haproxy", "postfix", "redis", "slapd", "ldapsearch")
	for only, want := range map[string][]string{
		"throughput": {"direct, throughput", "HAProxy, CPU per message", "Postfix, memory under load", "mailcutover, throughput"},
		"idle":       {"idle connection, plain", "idle connection, TLS"},
		"table":      {"decision for a random address"},
		"identity":   {"read and check", "ldapsearch, reading the same", "peak memory, VmHWM"},
		"disk":       {"log, a message that goes through", "ledger, a message that goes through", "spool, a held message"},
		"nodes":      {"2 nodes, Redis' commands at rest", "2 nodes, switch told as done"},
		"spool":      {"mailcutover, accepted into the spool", "mailcutover, replay", "start with 500 held messages, until the queue sends", "memory of a held message, of 500, VmRSS"},
		"recall":     {"brought", "looked through again", "memory, large messages", "memory, many messages"},
		"logins":     {"nginx, logins, plain", "Dovecot, CPU per login, TLS", "mailcutover, FETCH, TLS", "HAProxy, idle session, plain", "mailcutover, idle session, TLS"},
	} {
		t.Run(only, func(t *testing.T) {
			var out bytes.Buffer
			if err := measure(t.Context(), small(t), only, 0, false, &out, t.Output()); err != nil && !errors.Is(err, errMissed) {
				t.Fatal(err)
			}
			for _, name := range want {
				if !strings.Contains(out.String(), "\n  "+name+" ") {
					t.Errorf("no figure %q in\n%s", name, &out)
				}
			}
		})
	}
}

func TestProfile(t *testing.T) {
	peers.Need(t, "smtp-source", "smtp-sink")
	dir := t.TempDir()
	if err := peers.Run(t.Context(), "profile", t.Output(), func(tb peers.TB) { profile(tb, small(t), "", dir) }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpu", "allocs", "mutex", "block"} {
		if info, err := os.Stat(filepath.Join(dir, name+".pprof")); err != nil || info.Size() == 0 {
			t.Errorf("profile %s: %v", name, err)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	for _, args := range [][]string{{"-only", "luck"}, {"-rounds", "0"}, {"-turn", "0s"}, {"more"}, {"-fast"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestMissedBarsAreNamed(t *testing.T) {
	part := figure.Part{Figures: []figure.Figure{
		figure.New("good", "s", 1).AtMost(2), figure.New("bad", "s", 3).AtMost(2), figure.New("free", "s", 9),
	}}
	err := missed([]figure.Part{part})
	if !errors.Is(err, errMissed) || !strings.HasSuffix(err.Error(), ": bad") {
		t.Errorf("got %v, want that bad was missed and nothing else", err)
	}
}

// The CPU time and the memory of this process and its children are read from /proc.
func TestProcessFigures(t *testing.T) {
	before, err := cpu(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		after, err := cpu(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after >= before+5*tick {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no CPU time within half a minute of work: %s, then %s", before, after)
		}
	}
	if bytes, err := resident(os.Getpid()); err != nil || bytes < 1<<20 || bytes > 64<<30 {
		t.Errorf("resident memory of this process: %.0f, %v", bytes, err)
	}
	if _, err := cpu(1 << 30); err == nil {
		t.Error("a process that doesn't exist has CPU time")
	}
}

// What there is no time for is named, and is no success.
func TestLimit(t *testing.T) {
	var out bytes.Buffer
	err := measure(t.Context(), small(t), "", time.Nanosecond, false, &out, t.Output())
	if !errors.Is(err, errLate) || errors.Is(err, errMissed) || !strings.Contains(err.Error(), "throughput, idle, table") {
		t.Errorf("got %v", err)
	}
}
