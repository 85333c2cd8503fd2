package splice

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The peers run in a process of their own, so that neither their memory nor their CPU is
// counted: this test binary, with peersVariable set.
const peersVariable = "SPLICE_BENCH_PEERS"

const fetched = 16 << 20

// peers is that process: platforms that answer, and clients that dial what is measured.
// Commands come line by line.
func peersMain() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	accepted := make(chan struct{}, 1<<16)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			go answer(nc)
		}
	}()
	fmt.Println(l.Addr())
	var clients []net.Conn
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		word := strings.Fields(commands.Text())
		n, err := strconv.Atoi(word[len(word)-1])
		if err != nil {
			panic(err)
		}
		switch word[0] {
		case "open":
			for range n {
				nc, err := net.Dial("tcp", word[1])
				if err != nil {
					panic(err)
				}
				if word[2] == "tls" {
					t := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}})
					if err := t.Handshake(); err != nil {
						panic(err)
					}
					nc = t
				}
				<-accepted
				clients = append(clients, nc)
				ask(nc, "P", 2)
			}
			fmt.Println("ok")
		case "fetch": // for n milliseconds: bytes and nanoseconds
			began := time.Now()
			var bytes int64
			for time.Since(began) < time.Duration(n)*time.Millisecond {
				bytes += ask(clients[0], "F", fetched)
			}
			fmt.Println(bytes, time.Since(began).Nanoseconds())
		case "ping": // n times: nanoseconds for one
			began := time.Now()
			for range n {
				ask(clients[0], "P", 2)
			}
			fmt.Println(time.Since(began).Nanoseconds() / int64(n))
		case "leave": // each client goes when it has heard the end
			var group sync.WaitGroup
			for _, c := range clients {
				group.Go(func() { io.Copy(io.Discard, c); c.Close() })
			}
			fmt.Println("ok")
			group.Wait()
			clients = nil
			fmt.Println("ok")
		case "close":
			for _, c := range clients {
				c.Close()
			}
			clients = nil
			fmt.Println("ok")
		}
	}
	os.Exit(0)
}

var drain = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func ask(nc net.Conn, command string, answer int) (total int64) {
	if _, err := io.WriteString(nc, command+"\n"); err != nil {
		panic(err)
	}
	p := drain.Get().(*[256 << 10]byte)
	defer drain.Put(p)
	for total < int64(answer) {
		n, err := nc.Read(p[:])
		if err != nil {
			panic(err)
		}
		total += int64(n)
	}
	return total
}

func answer(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 64)
	p := make([]byte, 256<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		n := len(line)
		if line == "F\n" {
			n = fetched
		}
		for n > 0 {
			k, err := nc.Write(p[:min(n, len(p))])
			if err != nil {
				return
			}
			n -= k
		}
	}
}

// company is a process of peers.
type company struct {
	b        *testing.B
	in       io.Writer
	out      *bufio.Reader
	platform string
}

func newCompany(b *testing.B) *company {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), peersVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	c := &company{b: b, in: in, out: bufio.NewReader(out)}
	c.platform = c.line()
	return c
}

func (c *company) line() string {
	c.b.Helper()
	s, err := c.out.ReadString('\n')
	if err != nil {
		c.b.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func (c *company) do(format string, a ...any) string {
	c.b.Helper()
	fmt.Fprintf(c.in, format+"\n", a...)
	return c.line()
}

// A joiner accepts clients and joins each with the platform; it returns its address and how to
// learn the CPU time of all that it does.
type joiner func(b *testing.B, platform string, cert *tls.Certificate) (addr string, cpu func() time.Duration)

func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func accepting(b *testing.B, platform string, cert *tls.Certificate, under func(net.Conn) net.Conn, join func(client, platform net.Conn)) (string, func() time.Duration) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	var config *tls.Config
	if cert != nil {
		config = &tls.Config{Certificates: []tls.Certificate{*cert}, DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true}
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", platform)
			if err != nil {
				b.Error(err)
				return
			}
			if config != nil {
				t := tls.Server(under(nc), config)
				if err := t.Handshake(); err != nil {
					b.Error(err)
					return
				}
				nc = t
			}
			join(nc, up)
		}
	}()
	return l.Addr().String(), ownCPU
}

func byEngine(b *testing.B, platform string, cert *tls.Certificate) (string, func() time.Duration) {
	e := engine(b, Options{}, newWatcher)
	return accepting(b, platform, cert, Under, func(client, platform net.Conn) {
		j, err := e.Join(Pair{Client: client, Platform: platform, Owner: silent{}})
		if err != nil {
			b.Error(err)
			return
		}
		j.Start()
	})
}

type silent struct{}

func (silent) Flow() error         { return nil }
func (silent) ToClientSeen([]byte) {}
func (silent) PlatformGone()       {}
func (silent) Done(Ended)          {}

func byCopy(b *testing.B, platform string, cert *tls.Certificate) (string, func() time.Duration) {
	return accepting(b, platform, cert, func(nc net.Conn) net.Conn { return nc }, func(client, platform net.Conn) {
		for _, x := range [][2]net.Conn{{client, platform}, {platform, client}} {
			go func() { io.Copy(x[0], x[1]); x[0].Close(); x[1].Close() }()
		}
	})
}

func byHAProxy(b *testing.B, platform string, cert *tls.Certificate) (string, func() time.Duration) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := b.TempDir()
	bind := "bind " + addr
	if cert != nil {
		key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			b.Fatal(err)
		}
		both := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
		both = append(both, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})...)
		if err := os.WriteFile(filepath.Join(dir, "both.pem"), both, 0o600); err != nil {
			b.Fatal(err)
		}
		bind += " ssl crt " + filepath.Join(dir, "both.pem") + " no-tls-tickets"
	}
	config := "global\n maxconn 9900\n tune.ssl.cachesize 0\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\nfrontend f\n " + bind + "\n default_backend b\nbackend b\n server s " + platform + "\n"
	if err := os.WriteFile(filepath.Join(dir, "cfg"), []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", filepath.Join(dir, "cfg"))
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for until := time.Now().Add(patience); ; {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
			break
		}
		if time.Now().After(until) {
			b.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return addr, func() time.Duration {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		return time.Duration(user+system) * 10 * time.Millisecond
	}
}

var joiners = []struct {
	name string
	by   joiner
}{{"engine", byEngine}, {"io.Copy", byCopy}, {"haproxy", byHAProxy}}

// throughEach runs f for plain and TLS, through each of the joiners. What is accepted on behalf
// of HAProxy by its probe is one more platform connection.
func throughEach(b *testing.B, f func(b *testing.B, c *company, cpu func() time.Duration)) {
	cert := certificate(b)
	for _, mode := range []string{"plain", "tls"} {
		for _, x := range joiners {
			b.Run(mode+"/"+x.name, func(b *testing.B) {
				c := newCompany(b)
				with := &cert
				if mode == "plain" {
					with = nil
				}
				addr, cpu := x.by(b, c.platform, with)
				c.do("open %s %s 1", addr, mode)
				f(b, c, cpu)
				c.do("close 0")
			})
		}
	}
}

// BenchmarkFetch passes 16 MiB at a time from the platform to one client.
//
//	go test -run - -bench Fetch -benchtime 1x -count 5 ./proxy/splice
func BenchmarkFetch(b *testing.B) {
	throughEach(b, func(b *testing.B, c *company, cpu func() time.Duration) {
		var total, elapsed int64
		before := cpu()
		for b.Loop() {
			var n, ns int64
			fmt.Sscan(c.do("fetch 1000"), &n, &ns)
			total, elapsed = total+n, elapsed+ns
		}
		mib := float64(total) / (1 << 20)
		b.ReportMetric(mib/(float64(elapsed)/1e9), "MiB/s")
		b.ReportMetric(float64((cpu()-before).Microseconds())/mib, "cpu-µs/MiB")
	})
}

// BenchmarkCommand is a small command and its answer.
func BenchmarkCommand(b *testing.B) {
	throughEach(b, func(b *testing.B, c *company, cpu func() time.Duration) {
		const n = 10000
		var total float64
		before := cpu()
		rounds := 0
		for b.Loop() {
			var ns float64
			fmt.Sscan(c.do("ping %d", n), &ns)
			total += ns
			rounds++
		}
		b.ReportMetric(total/float64(rounds)/1000, "µs/command")
		b.ReportMetric(float64((cpu()-before).Nanoseconds())/1000/float64(rounds*n), "cpu-µs/command")
	})
}

// BenchmarkIdle is the memory of an idle pair, with its connections; PSS from
// /proc/self/smaps_rollup. Each has passed one command.
func BenchmarkIdle(b *testing.B) {
	const pairs = 3000
	cert := certificate(b)
	for _, mode := range []string{"plain", "tls"} {
		for _, x := range joiners[:2] {
			b.Run(mode+"/"+x.name, func(b *testing.B) {
				c := newCompany(b)
				with := &cert
				if mode == "plain" {
					with = nil
				}
				addr, _ := x.by(b, c.platform, with)
				c.do("open %s %s 100", addr, mode)
				for b.Loop() {
					before := pss(b)
					c.do("open %s %s %d", addr, mode, pairs)
					b.ReportMetric((pss(b)-before)/pairs, "KiB/pair")
				}
				c.do("close 0")
			})
		}
	}
}

// BenchmarkEnd ends 9,000 idle pairs at once: until all platforms are gone, and until all is
// done. It needs 18,000 descriptors here, and as many in the process of the peers.
func BenchmarkEnd(b *testing.B) {
	const pairs = 9000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2*pairs+100 {
		b.Fatalf("the limit of descriptors is %d, %v; it takes %d", limit.Cur, err, 2*pairs+100)
	}
	for b.Loop() {
		c := newCompany(b)
		e := engine(b, Options{}, newWatcher)
		var gone, done sync.WaitGroup
		joints := make(chan *Joint, pairs)
		addr, cpu := accepting(b, c.platform, nil, Under, func(client, platform net.Conn) {
			gone.Add(1)
			done.Add(1)
			j, err := e.Join(Pair{Client: client, Platform: platform, Owner: counted{gone: &gone, done: &done}})
			if err != nil {
				b.Error(err)
				return
			}
			j.Start()
			joints <- j
		})
		c.do("open %s plain %d", addr, pairs)
		c.do("leave 0")
		before, used := time.Now(), cpu()
		for range pairs {
			(<-joints).EndClient(words("* BYE\r\n"), 0)
		}
		gone.Wait()
		b.ReportMetric(float64(time.Since(before).Microseconds())/1000, "ms-gone")
		done.Wait()
		b.ReportMetric(float64(time.Since(before).Microseconds())/1000, "ms-done")
		b.ReportMetric(float64((cpu()-used).Microseconds())/pairs, "cpu-µs/pair")
		c.line()
	}
}

type counted struct {
	silent
	gone, done *sync.WaitGroup
}

func (c counted) PlatformGone() { c.gone.Done() }
func (c counted) Done(Ended)    { c.done.Done() }

// pss returns this process' share of memory in KiB, when it shrinks no more.
func pss(b *testing.B) float64 {
	least := 0.0
	for range 3 {
		runtime.GC()
		debug.FreeOSMemory()
		text, err := os.ReadFile("/proc/self/smaps_rollup")
		if err != nil {
			b.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "\nPss:")
		n, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		if least == 0 || n < least {
			least = n
		}
	}
	return least
}
