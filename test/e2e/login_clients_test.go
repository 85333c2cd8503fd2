package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// A mail program, as these tests see it, tells of what it sees line by line: "on PLATFORM" by
// the marker of the mailbox it got into, "end TEXT" when a session was ended by the server with
// these last words, "no TEXT" when it couldn't log in.

// mailProgram is a real client that comes back whenever it loses its session.
type mailProgram struct {
	name  string
	stays bool // it has a session that lasts; others come again and again
	words string
	// run does one login after the other until the context ends.
	run func(ctx context.Context, f *loginFront, dir, user string, tell func(string))
}

// mailPrograms are the clients. words are the last ones of a session that a switch ends.
var mailPrograms = []mailProgram{
	{name: "imaplib", stays: true, words: "BYE [UNAVAILABLE]", run: python(imaplibScript)},
	{name: "poplib", stays: true, run: python(poplibScript)},
	{name: "smtplib", stays: true, words: "421", run: runSMTPLib},
	{name: "managesieve", stays: true, words: "BYE (TRYLATER)", run: python(sieveScript)},
	{name: "openssl", stays: true, words: "BYE [UNAVAILABLE]", run: runOpenSSL},
	{name: "goimap", stays: true, words: "BYE", run: runGoIMAP},
	{name: "mbsync", run: runMbsync},
	{name: "curl", run: runCurl},
	{name: "curlpop", run: runCurlPOP3},
	{name: "curlsmtp", run: runCurlSMTP},
	{name: "sieveconnect", run: runSieveConnect},
}

// TestMailPrograms has each client with its session open, or coming again and again, while its
// agency is cut over and brought back.
func TestMailPrograms(t *testing.T) {
	t.Parallel()
	peers.Need(t, "dovecot", "python", "curl", "mbsync", "openssl", "sieve-connect")
	f := startLoginFront(t, loginSetup{logins: "  spread: 1s\n  wait: 5s\n  failures: {delay: 10ms, max_delay: 20ms}\n"})
	for _, p := range mailPrograms {
		f.addLogins(p.name, "anna")
	}
	t.Run("clients", func(t *testing.T) {
		for _, p := range mailPrograms {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				p.cutover(t, f)
			})
		}
	})
}

// story is what a mail program has told so far.
type story struct {
	t     *testing.T
	told  []string
	lines chan string
	// failed are its refused logins.
	failed int
}

// until reads on until it tells of what begins so, and returns that line.
func (s *story) until(what string) string {
	s.t.Helper()
	patient := time.NewTimer(patience)
	defer patient.Stop()
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the program ended before %q; it told %q", what, s.told)
			}
			s.told = append(s.told, line)
			if strings.HasPrefix(line, "no ") {
				s.failed++
			}
			if strings.HasPrefix(line, what) {
				return line
			}
		case <-patient.C:
			s.t.Fatalf("no %q within %s; it told %q", what, patience, s.told)
		}
	}
}

// cutover is the story of one client.
func (p *mailProgram) cutover(t *testing.T, f *loginFront) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &story{t: t, lines: make(chan string, 10_000)}
	done := make(chan struct{})
	dir := peers.TempDir(t, "client")
	go func() {
		defer close(done)
		defer close(s.lines)
		p.run(ctx, f, dir, "anna@"+p.name+".example", func(line string) {
			select {
			case s.lines <- line:
			case <-ctx.Done():
			}
		})
	}()
	defer func() { cancel(); <-done }()
	s.until("on exchange")
	switched := func(kind operation.Kind, losing, winning *loginPlatform) (from, to int) {
		t.Helper()
		if p.stays {
			s.until("staying")
		}
		began := time.Now()
		f.mustSwitch(kind, p.name)
		ended := time.Now()
		from = losing.sentinel(t)
		if p.stays {
			if end := s.until("end"); !strings.Contains(end, p.words) {
				t.Errorf("%s: the session's last words are %q, want %q", kind, end, p.words)
			}
			if late := time.Since(ended); late > 60*time.Second {
				t.Errorf("%s: the session ended %s after the operation, %s after its begin", kind, late, time.Since(began))
			}
		}
		s.until("on " + winning.id)
		before := len(s.told)
		for range 2 { // and stays there
			if !p.stays {
				s.until("on ")
			}
		}
		to = losing.sentinel(t)
		for _, line := range s.told[before:] {
			if strings.HasPrefix(line, "on "+losing.id) {
				t.Errorf("%s: it got back to %s: %q", kind, losing.id, s.told)
			}
		}
		return from, to
	}
	from, to := switched(operation.Cutover, f.exchange, f.ox)
	if late := f.exchange.loginsOf(p.name, from, to); len(late) > 0 {
		t.Errorf("after the cutover exchange has seen %q", late)
	}
	from, to = switched(operation.Rollback, f.ox, f.exchange)
	if late := f.ox.loginsOf(p.name, from, to); len(late) > 0 {
		t.Errorf("after the rollback ox has seen %q", late)
	}
	for _, line := range s.told {
		if strings.HasPrefix(line, "wrong") {
			t.Errorf("the password was said to be wrong: %q", s.told)
		}
	}
	if p.stays && s.failed > 0 {
		t.Logf("%d logins were refused meanwhile: %q", s.failed, s.told)
	}
}

// tellLines runs a program to its end and tells each line that it prints.
func tellLines(ctx context.Context, cmd *exec.Cmd, tell func(string)) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = patience
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		tell(lines.Text())
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// python runs a script with host, port, authority and user.
func python(script func(*loginFront) (text, addr string)) func(context.Context, *loginFront, string, string, func(string)) {
	return func(ctx context.Context, f *loginFront, _, user string, tell func(string)) {
		text, addr := script(f)
		host, port, _ := net.SplitHostPort(addr)
		cmd := exec.CommandContext(ctx, "python3", "-u", "-c", pythonFrame+text, host, port, f.ca, user)
		if err := tellLines(ctx, cmd, tell); err != nil {
			tell("no " + err.Error())
		}
	}
}

// pythonFrame calls once() again and again.
const pythonFrame = `
import sys, ssl, time, socket, base64
host, port, ca, user = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
tls = ssl.create_default_context(cafile=ca)
socket.setdefaulttimeout(30)
def forever(once):
    while True:
        try:
            once()
        except Exception as e:
            print("no", repr(e)[:300].replace("\n", " "))
            time.sleep(0.1)
`

func imaplibScript(f *loginFront) (text, addr string) {
	return `
import imaplib
def once():
    c = imaplib.IMAP4(host, port)
    c.starttls(tls)
    c.login(user, "secret")
    c.select()
    typ, data = c.fetch(b"1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    print("on", data[0][1].decode().split()[1])
    c.send(b"i IDLE\r\n")
    last = b""
    while True:
        line = c.readline()
        if not line:
            break
        if line.startswith(b"+"):
            print("staying")
        last = line
    print("end", last.decode().strip())
    c.shutdown()
forever(once)
`, f.imap
}

func poplibScript(f *loginFront) (text, addr string) {
	return `
import poplib
def once():
    c = poplib.POP3(host, port)
    c.stls(tls)
    c.user(user)
    c.pass_("secret")
    lines = c.top(1, 0)[1]
    print("on", [l for l in lines if l.startswith(b"Subject:")][0].decode().split()[1])
    print("staying")
    try:
        while True:
            c.noop()
            time.sleep(0.05)
    except (poplib.error_proto, OSError) as e:
        print("end", repr(e))
    c.close()
forever(once)
`, f.pop3
}

func smtplibScript(f *loginFront) (text, addr string) {
	return `
import smtplib, uuid
def once():
    c = smtplib.SMTP(host, port)
    c.starttls(context=tls)
    c.login(user, "secret")
    code, text = c.docmd("MAIL FROM:<%s>" % user)
    code, text = c.docmd("RCPT TO:<where@elsewhere.example>")
    name = "%s@client.example" % uuid.uuid4()
    code, text = c.data("Message-ID: <%s>\r\n\r\ntext\r\n" % name)
    if code != 250:
        raise Exception("message: %d %s" % (code, text))
    print("sent", name)
    print("staying")
    while True:
        try:
            code, text = c.noop()
        except smtplib.SMTPServerDisconnected:
            print("end disconnected")
            return
        if code == 421:
            print("end", code, text)
            c.close()
            return
        time.sleep(0.3)
forever(once)
`, f.submission
}

// runSMTPLib tells where a message came that it has sent.
func runSMTPLib(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	python(smtplibScript)(ctx, f, dir, user, func(line string) {
		if id, ok := strings.CutPrefix(line, "sent "); ok {
			line = "on " + f.relayOf(id)
		}
		tell(line)
	})
}

// relayOf returns the platform whose relay has the message with this word in it.
func (f *loginFront) relayOf(word string) string {
	found := ""
	for _, p := range []*loginPlatform{f.exchange, f.ox} {
		for _, m := range p.relay.Stored() {
			if within(m.Raw, word) {
				found += p.id
			}
		}
	}
	return found
}

func sieveScript(f *loginFront) (text, addr string) {
	return `
def once():
    s = socket.create_connection((host, port))
    r = s.makefile("rb")
    def answer():
        lines = []
        while True:
            line = r.readline()
            if not line:
                raise EOFError(lines)
            lines.append(line)
            if line.split()[0].strip() in (b"OK", b"NO", b"BYE"):
                return lines
    def ask(b):
        s.sendall(b + b"\r\n")
        lines = answer()
        if not lines[-1].startswith(b"OK"):
            raise Exception("%r: %r" % (b[:20], lines))
        return lines
    answer()
    ask(b"STARTTLS")
    s = tls.wrap_socket(s, server_hostname=host)
    r = s.makefile("rb")
    answer()
    ask(b'AUTHENTICATE "PLAIN" "' + base64.b64encode(b"\0" + user.encode() + b"\0secret") + b'"')
    names = ask(b"LISTSCRIPTS")
    print("on", names[0].decode().split('"')[1])
    print("staying")
    line = r.readline()
    print("end", line.decode().strip())
    s.close()
forever(once)
`, f.sieve
}

// runOpenSSL uses openssl s_client as a mail program.
func runOpenSSL(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "openssl", "s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-CAfile", f.ca, "-connect", f.imap, "-starttls", "imap")
		cmd.Stderr = new(strings.Builder)
		in, err := cmd.StdinPipe()
		if err != nil {
			tell("no " + err.Error())
			return
		}
		defer in.Close()
		last := ""
		if _, err := fmt.Fprintf(in, "a LOGIN %s secret\r\nb SELECT INBOX\r\nc FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\nd IDLE\r\n", user); err != nil {
			tell("no " + err.Error())
			return
		}
		err = tellLines(ctx, cmd, func(line string) {
			switch {
			case strings.HasPrefix(line, "Subject: "):
				tell("on " + strings.Fields(line)[1])
			case strings.HasPrefix(line, "+ "):
				tell("staying")
			}
			if line != "" {
				last = line
			}
		})
		tell("end " + last)
		if err != nil {
			tell(fmt.Sprintf("no %v %v", err, cmd.Stderr))
			pause(ctx)
		}
	}
}

// runGoIMAP is a client of the library.
func runGoIMAP(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	once := func() error {
		bye := make(chan string, 1)
		c, err := imapclient.DialTLS(f.imaps, &imapclient.Options{TLSConfig: f.tlsConfig()})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Login(user, "secret").Wait(); err != nil {
			return err
		}
		if _, err := c.Select("INBOX", nil).Wait(); err != nil {
			return err
		}
		messages, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{Envelope: true}).Collect()
		if err != nil {
			return err
		}
		if len(messages) != 1 {
			return fmt.Errorf("%d messages", len(messages))
		}
		tell("on " + strings.Fields(messages[0].Envelope.Subject)[0])
		idle, err := c.Idle()
		if err != nil {
			return err
		}
		tell("staying")
		select {
		case <-c.Closed():
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := idle.Wait(); err != nil {
			bye <- err.Error()
		}
		select {
		case text := <-bye:
			tell("end BYE " + text)
		default:
			tell("end without a word")
		}
		return nil
	}
	for ctx.Err() == nil {
		if err := once(); err != nil && ctx.Err() == nil {
			tell("no " + err.Error())
			pause(ctx)
		}
	}
}

// pause keeps a client from asking again and again at full speed.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

// again runs a program that logs in once, and tells what look finds behind it.
func again(ctx context.Context, tell func(string), run func() *exec.Cmd, look func(out string) (platform string, err error)) {
	for ctx.Err() == nil {
		cmd := run()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.WaitDelay = patience
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return
		}
		platform := ""
		if err == nil {
			platform, err = look(string(out))
		}
		if err != nil {
			tell(fmt.Sprintf("no %v %.300s", err, strings.ReplaceAll(string(out), "\n", " ")))
		} else {
			tell("on " + platform)
		}
		pause(ctx)
	}
}

var errNoMarker = errors.New("no marker")

// subject finds the marker in a message.
func subject(out string) (string, error) {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "Subject: "); ok {
			return strings.Fields(rest)[0], nil
		}
	}
	return "", errNoMarker
}

// runMbsync copies the mailbox into an empty directory each time. It looks for the host's name
// in a certificate, and for no address.
func runMbsync(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	_, port, _ := net.SplitHostPort(f.imap)
	mail := filepath.Join(dir, "mail")
	config := fmt.Sprintf(`IMAPAccount node
Host localhost
Port %s
User %s
Pass secret
SSLType STARTTLS
SystemCertificates no
CertificateFile %s

IMAPStore far
Account node

MaildirStore near
Path %s/
Inbox %s/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
`, port, user, f.ca, mail, mail)
	file := filepath.Join(dir, "mbsyncrc")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tell("no " + err.Error())
		return
	}
	again(ctx, tell, func() *exec.Cmd {
		_ = os.RemoveAll(mail)
		_ = os.MkdirAll(mail, 0o700)
		return exec.CommandContext(ctx, "mbsync", "-c", file, "all")
	}, func(string) (string, error) {
		names, err := filepath.Glob(filepath.Join(mail, "INBOX", "new", "*"))
		if err != nil || len(names) == 0 {
			return "", errors.Join(errNoMarker, err)
		}
		text, err := os.ReadFile(names[0])
		if err != nil {
			return "", err
		}
		return subject(string(text))
	})
}

// curl is a run of curl against an address of the node.
func (f *loginFront) curl(ctx context.Context, user string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "curl", append([]string{"-sS", "--max-time", "20", "--ssl-reqd", "--cacert", f.ca, "--user", user + ":secret"}, args...)...)
}

func runCurl(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	again(ctx, tell, func() *exec.Cmd { return f.curl(ctx, user, "imap://"+f.imap+"/INBOX;MAILINDEX=1") }, subject)
}

func runCurlPOP3(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	again(ctx, tell, func() *exec.Cmd { return f.curl(ctx, user, "pop3://"+f.pop3+"/1") }, subject)
}

// runCurlSMTP sends a message each time, and looks which platform's relay got it.
func runCurlSMTP(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	id := ""
	n := 0
	file := filepath.Join(dir, "message")
	again(ctx, tell, func() *exec.Cmd {
		n++
		id = fmt.Sprintf("<%x.%d@client.example>", sha256.Sum256([]byte(user)), n)
		if err := os.WriteFile(file, []byte("Message-ID: "+id+"\r\n\r\ntext\r\n"), 0o600); err != nil {
			tell("no " + err.Error())
		}
		return f.curl(ctx, user, "--mail-from", user, "--mail-rcpt", "where@elsewhere.example", "-T", file, "smtp://"+f.submission)
	}, func(string) (string, error) {
		found := f.relayOf(id)
		if found == "" {
			return "", errNoMarker
		}
		return found, nil
	})
}

// runSieveConnect lists the scripts.
func runSieveConnect(ctx context.Context, f *loginFront, dir, user string, tell func(string)) {
	host, port, _ := net.SplitHostPort(f.sieve)
	again(ctx, tell, func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, "sieve-connect", "--server", host, "--port", port, "--user", user, "--tlscafile", f.ca, "--passwordfd", "0", "--list")
		cmd.Stdin = strings.NewReader("secret\n")
		return cmd
	}, func(out string) (string, error) {
		for _, id := range []string{"exchange", "ox"} {
			if strings.Contains(out, `"`+id+`"`) {
				return id, nil
			}
		}
		return "", errNoMarker
	})
}
