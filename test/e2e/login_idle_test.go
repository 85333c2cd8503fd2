package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
)

var loginIdle = flag.Int("login.idle", 500, "idle sessions of TestManyIdleSessions")

// A cutover ends all idle sessions of its agency within the configured spread, and not all in one
// moment; then the node holds nothing of them any more.
func TestManyIdleSessions(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(2**loginIdle + 1000); limit.Cur < need {
		t.Fatalf("the limit of open files is %d, %d idle sessions need %d: ulimit -n", limit.Cur, *loginIdle, need)
	}
	const spread = 2 * time.Second
	exchange, ox := startFakeIMAP(t, "exchange", nil), startFakeIMAP(t, "ox", nil)
	mail := startPlatform(t, platformtest.Options{}).Addr()
	s := loginSetup{imap: true, plain: true, logins: fmt.Sprintf("  spread: %s\n", spread)}
	for _, p := range []*fakeIMAP{exchange, ox} {
		s.setup.platforms = append(s.setup.platforms, platform{id: p.id, addr: mail, more: fmt.Sprintf("imap: {hosts: [%q], tls: {policy: none}}", p.addr)})
	}
	f := startLoginFront(t, s)
	f.addAgency("crowd", "anna")
	f.addAgency("quiet", "anna")
	const crowd, quiet = "anna@crowd.example", "anna@quiet.example"
	stays := idling(t, f, quiet)
	idling(t, f, crowd).conn.Close()
	waitFor(t, "the first session to end", func() bool { return f.sessions(t) == 1 })
	fdsBefore, goroutinesBefore := f.descriptors(t), f.gauge(t, "go_goroutines")
	rssBefore := rss(t, f.PID())

	conns := make([]net.Conn, *loginIdle)
	errs := make([]error, *loginIdle)
	var opening sync.WaitGroup
	for worker := range 32 {
		opening.Go(func() {
			for i := worker; i < len(conns); i += 32 {
				conns[i], errs[i] = f.idle(crowd)
			}
		})
	}
	opening.Wait()
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%.2000s", err)
	}
	if now := f.sessions(t); now != *loginIdle+1 {
		t.Errorf("the node has %d sessions, want %d", now, *loginIdle+1)
	}
	var parked float64
	waitFor(t, "sessions without goroutines", func() bool {
		parked = f.gauge(t, "go_goroutines") - goroutinesBefore
		return parked <= 100
	})
	grown := rss(t, f.PID()) - rssBefore

	byes := make([]time.Time, len(conns))
	var closing sync.WaitGroup
	for i, conn := range conns {
		closing.Go(func() {
			text, err := io.ReadAll(conn)
			if byes[i] = time.Now(); err != nil || !strings.HasPrefix(string(text), "* BYE [UNAVAILABLE]") {
				errs[i] = fmt.Errorf("session %d ends with %q, %w", i, text, err)
			}
		})
	}
	f.mustSwitch(operation.Cutover, "crowd")
	ended := time.Now()
	closing.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%.2000s", err)
	}
	first, last := byes[0], byes[0]
	for _, at := range byes {
		if at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	t.Logf("%d sessions: %.0f goroutines, %.1f KiB each; told within %s, the last one %s after the cutover was done",
		len(conns), parked, float64(grown)/1024/float64(len(conns)), last.Sub(first), last.Sub(ended))
	if all := last.Sub(first); all < spread/10 || all > spread+30*time.Second {
		t.Errorf("all were told within %s, want about %s", all, spread)
	}
	if late := exchange.since(ended, "crowd"); len(late) > 0 {
		t.Errorf("exchange has got logins of %q since", late)
	}
	for _, conn := range conns {
		conn.Close()
	}
	waitFor(t, "the sessions to end", func() bool { return f.sessions(t) == 1 })
	var fds int
	var goroutines float64
	defer func() {
		t.Logf("%d descriptors, before %d; %.0f goroutines, before %.0f", fds, fdsBefore, goroutines, goroutinesBefore)
	}()
	waitFor(t, "descriptors and goroutines as before", func() bool {
		fds, goroutines = f.descriptors(t), f.gauge(t, "go_goroutines")
		return fds <= fdsBefore+10 && goroutines <= goroutinesBefore+20+32 // 32 rest until the next connections come
	})
	stays.say("DONE")
	stays.say("n NOOP")
	stays.want("n OK")
}

// idle opens a session that idles.
func (f *loginFront) idle(user string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, byte(rand.IntN(256)), byte(1+rand.IntN(254)))}}
	conn, err := d.Dial("tcp", f.imap)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(4 * patience)); err != nil {
		return conn, err
	}
	if _, err := fmt.Fprintf(conn, "a LOGIN %s pw-%s\r\nb IDLE\r\n", user, user); err != nil {
		return conn, err
	}
	in := bufio.NewReaderSize(conn, 512)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return conn, err
		}
		if strings.HasPrefix(line, "+ ") {
			return conn, nil
		}
		if !strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "a OK") {
			return conn, fmt.Errorf("%w: %q", errAnswer, line)
		}
	}
}

// sessions returns how many the node says it has.
func (f *loginFront) sessions(t *testing.T) int { return int(f.gauge(t, "mailcutover_login_sessions")) }

// descriptors returns how many the node has open.
func (f *loginFront) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// gauge reads a metric of the node, over all of its labels.
func (f *loginFront) gauge(t *testing.T, name string) float64 {
	t.Helper()
	resp, err := http.Get(f.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	total, found := 0.0, false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		total, found = total+v, true
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return total
}
