package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
)

var (
	loginSessions = flag.Int("login.sessions", 1500, "logins of TestLoginMarkers")
	loginParallel = flag.Int("login.parallel", 50, "how many of them at a time")
)

// Many log in at once, with right and wrong passwords and commands behind them, while their
// agencies are switched: each gets into his own mailbox, nothing behind a wrong password comes
// to a platform, and nobody comes to the losing one after a switch is done.
func TestLoginMarkers(t *testing.T) {
	t.Parallel()
	exchange, ox := startFakeIMAP(t, "exchange", nil), startFakeIMAP(t, "ox", nil)
	mail := startPlatform(t, platformtest.Options{}).Addr()
	s := loginSetup{imap: true, plain: true, logins: "  spread: 500ms\n  failures: {delay: 1ms, max_delay: 1ms}\n"}
	for _, p := range []*fakeIMAP{exchange, ox} {
		s.setup.platforms = append(s.setup.platforms, platform{id: p.id, addr: mail, more: fmt.Sprintf("imap: {hosts: [%q], tls: {policy: none}}", p.addr)})
	}
	f := startLoginFront(t, s)
	agencies := []string{"east", "west"}
	const mailboxes = 50
	for _, agency := range agencies {
		rows := listHeader
		for i := range mailboxes {
			rows += loginRow(agency, fmt.Sprintf("user%d", i), "", "")
		}
		f.addAgency(agency)
		f.importList(rows)
	}
	// The password is that of both platforms' logins at once.
	f.shareSecret(exchange, ox)

	var next, right, wrong, refused atomic.Int64
	work := func() error {
		for next.Add(1) <= int64(*loginSessions) {
			agency := agencies[rand.IntN(len(agencies))]
			local := fmt.Sprintf("user%d", rand.IntN(mailboxes))
			guess := rand.IntN(4) == 0
			word, err := f.oneLogin(agency, local, guess)
			switch {
			case err != nil:
				return fmt.Errorf("%s of %s: %w", local, agency, err)
			case word == "wrong":
				wrong.Add(1)
			case word == "refused":
				refused.Add(1)
			default:
				right.Add(1)
			}
		}
		return nil
	}
	errs := make(chan error, *loginParallel)
	var all sync.WaitGroup
	for range *loginParallel {
		all.Go(func() {
			if err := work(); err != nil {
				errs <- err
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	losing := map[operation.Kind]*fakeIMAP{operation.Cutover: exchange, operation.Rollback: ox}
	switches := 0
	for running := true; running; {
		for _, kind := range []operation.Kind{operation.Cutover, operation.Rollback} {
			f.mustSwitch(kind, "east")
			switches++
			ended := time.Now()
			select {
			case <-done:
				running = false
			case <-time.After(300 * time.Millisecond):
			}
			if late := losing[kind].since(ended, "east"); len(late) > 0 {
				t.Errorf("%s: after it was done the losing platform got logins of %q", kind, late)
			}
		}
	}
	<-done
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for _, p := range []*fakeIMAP{exchange, ox} {
		p.mu.Lock()
		if len(p.late) > 0 {
			t.Errorf("%s got commands behind a wrong password: %q", p.id, p.late)
		}
		p.mu.Unlock()
	}
	t.Logf("%d logins and %d wrong passwords, %d put off, %d switches", right.Load(), wrong.Load(), refused.Load(), switches)
	// How many are put off is up to how often the agency is switched meanwhile.
	if right.Load() < int64(*loginSessions)/4 || wrong.Load() == 0 {
		t.Errorf("%d logins and %d wrong passwords, %d put off, of %d", right.Load(), wrong.Load(), refused.Load(), *loginSessions)
	}
}

// shareSecret has both platforms take the same password for a mailbox: "pw-" and its local part.
func (f *loginFront) shareSecret(platforms ...*fakeIMAP) {
	for _, p := range platforms {
		p.secret = func(login string) string {
			local, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(login), `amt\`), "@")
			local, _, _ = strings.Cut(local, ".")
			return "pw-" + local
		}
	}
}

// oneLogin logs in, and asks for the marker without waiting for the answer. It returns what came
// of it: "right", "wrong" or "refused"; an error if it got into another mailbox.
func (f *loginFront) oneLogin(agency, local string, guess bool) (string, error) {
	// From many addresses: one has too few ports for a campaign.
	from := net.IPv4(127, 9, byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := d.Dial("tcp", f.imap)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	secret := "pw-" + local
	if guess {
		secret = "guess"
	}
	if _, err := fmt.Fprintf(conn, "a LOGIN %s@%s.example %s\r\nb FETCH 1 BODY[]\r\nc LOGOUT\r\n", local, agency, secret); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	answered := ""
	for {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		switch {
		case err != nil:
			if answered == "a OK" { // moved in the middle
				return "refused", nil
			}
			return "", fmt.Errorf("after %q: %w", answered, err)
		case strings.HasPrefix(line, "* BYE"):
			if answered == "a OK" {
				return "refused", nil
			}
			if answered == "" {
				return "", fmt.Errorf("%w: %q", errAnswer, line)
			}
		case strings.HasPrefix(line, "a OK") && guess:
			return "", fmt.Errorf("%w: a wrong password is answered %q", errAnswer, line)
		case strings.HasPrefix(line, "a OK"):
			answered = "a OK"
		case strings.HasPrefix(line, "a NO [UNAVAILABLE]"):
			return "refused", nil
		case strings.HasPrefix(line, "a NO [AUTHENTICATIONFAILED]") && guess:
			answered = "a NO"
		case strings.HasPrefix(line, "a "):
			return "", fmt.Errorf("%w: %q", errAnswer, line)
		case answered == "a NO" && strings.HasPrefix(line, "b "):
			if strings.HasPrefix(line, "b OK") {
				return "", fmt.Errorf("%w: %q", errAnswer, line)
			}
			return "wrong", nil
		case strings.HasPrefix(line, "exchange "), strings.HasPrefix(line, "ox "):
			_, whose, _ := strings.Cut(line, " ")
			if !strings.EqualFold(whose, atExchange(agency, local)+")") && whose != local+"@"+agency+".example)" {
				return "", fmt.Errorf("%w: it is in the mailbox %q", errAnswer, line)
			}
			return "right", nil
		}
	}
}
