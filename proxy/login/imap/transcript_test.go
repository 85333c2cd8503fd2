package imap

import (
	"bufio"
	"crypto/tls"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/internal/platformtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the transcripts' outputs anew; to be read as a diff")

// transcript is a file of testdata: settings up to a line "--", then inputs, each followed by
// what came of it. # begins a comment.
type transcript struct {
	t       *testing.T
	outputs []string // the first words of outputs
	lines   []string
	written []string
}

// transcripts runs play for each file, and writes it anew if asked to.
func transcripts(t *testing.T, folder string, outputs []string, play func(*transcript)) {
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no transcripts in %s: %v", folder, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tr := &transcript{t: t, outputs: outputs, lines: strings.Split(strings.TrimRight(string(b), "\n"), "\n")}
			play(tr)
			if len(tr.lines) > 0 {
				t.Errorf("nothing came of %q", tr.lines[0])
			}
			if *update && !t.Failed() {
				if err := os.WriteFile(path, []byte(strings.Join(tr.written, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// isOutput tells whether the next line is an output.
func (tr *transcript) isOutput() bool {
	if len(tr.lines) == 0 {
		return false
	}
	for _, o := range tr.outputs {
		if strings.HasPrefix(tr.lines[0], o+" ") {
			return true
		}
	}
	return false
}

// output compares what came with the next line, or notes it.
func (tr *transcript) output(line string) {
	tr.t.Helper()
	tr.written = append(tr.written, line)
	if *update {
		return
	}
	if !tr.isOutput() || tr.lines[0] != line {
		tr.t.Fatalf("got  %s\nwant %s", line, append(tr.lines, "nothing")[0])
	}
	tr.lines = tr.lines[1:]
}

// next returns the next input. false: outputs come next, or nothing does.
func (tr *transcript) next() (word, rest string, ok bool) {
	tr.t.Helper()
	for len(tr.lines) > 0 {
		line := tr.lines[0]
		if tr.isOutput() {
			if !*update {
				return "", "", false // a caller that wants more fails at the end
			}
			tr.lines = tr.lines[1:]
			continue
		}
		tr.written = append(tr.written, line)
		tr.lines = tr.lines[1:]
		if line != "" && !strings.HasPrefix(line, "#") {
			word, rest, _ = strings.Cut(line, " ")
			return word, rest, true
		}
	}
	return "", "", false
}

// end is the test's end of a connection.
type end struct {
	tr     *transcript
	nc     net.Conn
	r      *bufio.Reader
	prefix string // of the other side's lines
}

// pair returns both ends of a connection over loopback.
func pair(t testing.TB) (here, there net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if here, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
	return here, there
}

// heard takes the lines that come from the other side.
func (e *end) heard() {
	e.tr.t.Helper()
	wait := time.Minute
	if *update {
		wait = 150 * time.Millisecond // no test: the file's author reads what came
	}
	if len(e.tr.lines) > 0 && e.tr.lines[0] == "tls" {
		return // what comes now is the handshake
	}
	for *update || e.tr.isOutput() && strings.HasPrefix(e.tr.lines[0], e.prefix+" ") {
		_ = e.nc.SetReadDeadline(time.Now().Add(wait))
		line, err := e.r.ReadString('\n')
		if *update && err != nil {
			return
		}
		if err != nil {
			e.tr.t.Fatalf("got %q and %v, want %s", line, err, e.tr.lines[0])
		}
		quoted := strings.ReplaceAll(strconv.Quote(line)[1:], `\"`, `"`)
		e.tr.output(e.prefix + " " + strings.TrimSuffix(quoted, `\r\n"`))
	}
}

// send sends what a line of the transcript says. The other side may have gone.
func (e *end) send(text string) { _, _ = io.WriteString(e.nc, text) }

// over makes sure that nothing more comes.
func (e *end) over() {
	e.tr.t.Helper()
	_ = e.nc.SetReadDeadline(time.Now().Add(time.Minute))
	if b, _ := io.ReadAll(e.r); len(b) > 0 {
		e.tr.t.Errorf("more came: %.200q", b)
	}
}

// upgrade puts TLS on.
func (e *end) upgrade(c *tls.Conn) {
	e.tr.t.Helper()
	_ = e.nc.SetDeadline(time.Now().Add(time.Minute))
	if err := c.Handshake(); err != nil {
		e.tr.t.Fatalf("TLS handshake: %v", err)
	}
	e.nc = c
	e.r.Reset(c)
}

// certificates returns both sides' settings of a handshake.
func certificates(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if server, err = ca.ServerConfig(); err != nil {
		t.Fatal(err)
	}
	return server, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}

// bytesOf reads what a line of a transcript sends: \r, \n, \t and \xNN, and <<text|n>> for n times
// the text.
func bytesOf(t *testing.T, s string) string {
	t.Helper()
	for {
		before, rest, found := strings.Cut(s, "<<")
		if !found {
			break
		}
		what, after, found := strings.Cut(rest, ">>")
		unit, count, _ := strings.Cut(what, "|")
		n, err := strconv.Atoi(count)
		if !found || err != nil {
			t.Fatalf("%.80q: want <<text|times>>", s)
		}
		s = before + strings.Repeat(unit, n) + after
	}
	return escapes.ReplaceAllStringFunc(s, func(e string) string {
		text, err := strconv.Unquote(`"` + e + `"`)
		if err != nil {
			t.Fatalf("%q: %v", e, err)
		}
		return text
	})
}

// escapes are those of a transcript. Any other backslash stands for itself.
var escapes = regexp.MustCompile(`\\(r|n|t|x[0-9a-f]{2})`)
