package compose

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// file is what the test reads of docker-compose.yml.
type file struct {
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image       string
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	DependsOn   []string `yaml:"depends_on"`

	Build           string
	User            string
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	Sysctls         map[string]string
	StopGracePeriod string `yaml:"stop_grace_period"`
	Healthcheck     struct {
		Test              []string
		Interval, Timeout string
		StartPeriod       string `yaml:"start_period"`
	}
}

// settings are what the test reads of configs/compose.yaml.
type settings struct {
	Data  string
	Table struct {
		Redis struct {
			URL         string
			PasswordEnv string `yaml:"password_env"`
			Sentinel    struct {
				Master    string
				Addresses []string
			}
		}
	}
	Listeners []struct{ ID, Address, Protocol string }
	Platforms []struct {
		ID                         string
		Outside, Inside, Mailboxes struct{ Hosts []string }
	}
	Identity struct {
		Directories []struct{ Servers []string }
	}
	Admin struct{ Address string }
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t *testing.T) (file, settings) {
	t.Helper()
	var f file
	if err := yaml.Unmarshal(read(t, "docker-compose.yml"), &f); err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	var s settings
	if err := yaml.Unmarshal(read(t, "configs/compose.yaml"), &s); err != nil {
		t.Fatalf("configs/compose.yaml: %v", err)
	}
	return f, s
}

// mounts returns the files of configs/ that a service gets: path inside to name here.
func (s service) mounts() map[string]string {
	files := make(map[string]string)
	for _, v := range s.Volumes {
		if f := strings.Split(v, ":"); strings.HasPrefix(f[0], "./configs/") {
			files[f[1]] = strings.TrimPrefix(f[0], "./")
		}
	}
	return files
}

// program returns the command that a service's container ends up as.
func (s service) program() []string {
	if len(s.Command) == 3 && s.Command[0] == "sh" {
		lines := strings.Split(strings.TrimSpace(s.Command[2]), "\n")
		last, _ := strings.CutPrefix(lines[len(lines)-1], "exec ")
		return strings.Fields(last)
	}
	return s.Command
}

// containerPorts returns the ports that a service publishes, as inside.
func (s service) containerPorts(t *testing.T) []string {
	t.Helper()
	var ports []string
	for _, p := range s.Ports {
		f := strings.Split(p, ":")
		if len(f) != 3 || f[0] != "127.0.0.1" {
			t.Errorf("port %q: want 127.0.0.1:PORT:PORT", p)
			continue
		}
		ports = append(ports, f[2])
	}
	slices.Sort(ports)
	return ports
}

// configuredPorts finds the ports that example configurations listen at.
func configuredPorts(t *testing.T, examples []string) []string {
	t.Helper()
	listens := map[string]*regexp.Regexp{
		"redis.conf":        regexp.MustCompile(`(?m)^port (\d+)$`),
		"postfix-master.cf": regexp.MustCompile(`(?m)^(smtp) +inet `),
		"dovecot.conf":      regexp.MustCompile(`(?m)^ +port = ([1-9]\d*)$`),
	}
	var ports []string
	for _, name := range examples {
		if re := listens[name]; re != nil {
			for _, m := range re.FindAllSubmatch(read(t, "configs/peers/"+name), -1) {
				ports = append(ports, strings.Replace(string(m[1]), "smtp", "25", 1))
			}
		}
	}
	slices.Sort(ports)
	return ports
}

// comparable writes a command line without the directories that differ: the program's
// own, and the one of its configuration. Of an address only the protocol counts.
func comparable(args []string) []string {
	c := []string{path.Base(args[0])}
	for _, a := range args[1:] {
		switch {
		case strings.HasPrefix(a, "ldap://"):
			a = "URL"
		case strings.HasSuffix(a, ".conf"):
			a = "CONFIG/" + path.Base(a)
		case strings.HasPrefix(a, "/"): // a directory with main.cf
			a = "CONFIG"
		}
		c = append(c, a)
	}
	return c
}

// dovecots starts the two platforms.
func dovecots(t *testing.T) (source, target *peers.Dovecot) {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _, err := ca.WriteFiles(peers.TempDir(t, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	start := func(dressed string) *peers.Dovecot {
		return peers.StartDovecot(t, peers.DovecotOptions{Dressed: dressed, CertFile: cert, KeyFile: key})
	}
	return start("dovecot-source.conf"), start("dovecot-target.conf")
}

func TestPeersAreThoseOfTheTests(t *testing.T) {
	f, _ := load(t)
	source, target := dovecots(t)
	for _, test := range []struct {
		service, peer string
		process       *peers.Process
	}{
		{"redis", "redis", peers.StartRedis(t, peers.RedisOptions{}).Process},
		{"postfix", "postfix", peers.StartMX(t, peers.MXOptions{NextHop: source.LMTP}).Process},
		{"source", "dovecot", source.Process},
		{"target", "dovecot", target.Process},
		{"directory", "slapd", peers.StartSlapd(t, peers.SlapdOptions{Example: true}).Process},
		{"redis-replica", "redis", peers.StartRedis(t, peers.RedisOptions{}).Process},
	} {
		t.Run(test.service, func(t *testing.T) {
			s, ok := f.Services[test.service]
			if !ok {
				t.Fatal("no such service")
			}
			var mounted []string
			for inside, name := range s.mounts() {
				if _, err := os.Stat(filepath.Join(root(t), name)); err != nil {
					t.Errorf("mounted at %s: %v", inside, err)
				}
				mounted = append(mounted, path.Base(name))
			}
			slices.Sort(mounted)
			examples := test.process.Examples()
			slices.Sort(examples)
			if !slices.Equal(mounted, examples) {
				t.Errorf("mounts %v, the tests use %v", mounted, examples)
			}

			// More may follow, as the address to bind to.
			got, want := comparable(s.program()), comparable(test.process.Command())
			if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
				t.Errorf("runs %q, the tests run %q", got, want)
			}
			for _, arg := range s.program()[1:] {
				for inside := range s.mounts() {
					if arg == inside || arg == path.Dir(inside) {
						return // below: only if none is named
					}
				}
			}
			t.Errorf("%q names none of the mounted files %v", s.program(), s.mounts())
		})
		t.Run(test.service+" ports", func(t *testing.T) {
			s := f.Services[test.service]
			got, want := s.containerPorts(t), configuredPorts(t, test.process.Examples())
			for _, arg := range s.program() { // slapd's are no setting
				if u, err := url.Parse(arg); err == nil && u.Scheme == "ldap" {
					want = append(want, u.Port())
				}
			}
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("publishes %v, its configuration listens at %v", got, want)
			}
		})
		t.Run(test.service+" packages", func(t *testing.T) {
			s := f.Services[test.service]
			if s.Image != "debian:12" {
				return // nothing is installed
			}
			m := regexp.MustCompile(`--no-install-recommends install (.*)`).FindStringSubmatch(strings.Join(s.Command, "\n"))
			if m == nil {
				t.Fatal("installs nothing")
			}
			got := strings.Fields(m[1])
			slices.Sort(got)
			if want := peers.Packages(test.peer); !slices.Equal(got, want) {
				t.Errorf("installs %v, the tests need %v", got, want)
			}
		})
	}
}

// The nodes are alike but for their names, ports and volumes, run what the image has, as nobody,
// and write nothing but their data.
func TestMailcutoverServices(t *testing.T) {
	f, config := load(t)
	want := []string{port(t, config.Admin.Address)}
	for _, l := range config.Listeners {
		want = append(want, port(t, l.Address))
	}
	slices.Sort(want)
	dockerfile := string(read(t, "Dockerfile"))
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(read(t, "go.mod"))
	if from := fmt.Sprintf("FROM golang:%s-bookworm AS build\n", version[1]); !strings.Contains(dockerfile, from) || !strings.Contains(dockerfile, "\nFROM scratch\n") {
		t.Errorf("Dockerfile: want %q as in go.mod, and FROM scratch", from)
	}
	for _, line := range []string{`ENTRYPOINT ["/usr/bin/mailcutover"]`, "USER 65532:65532", `CMD ["/usr/bin/mailcutover", "health"]`} {
		if !strings.Contains(dockerfile, line+"\n") {
			t.Errorf("Dockerfile has no %s", line)
		}
	}
	names := make(map[string]bool)
	keys, volumes := make(map[string]bool), make(map[string]bool)
	for _, id := range []string{"mailcutover", "mailcutover-2"} {
		s, ok := f.Services[id]
		if !ok {
			t.Fatalf("no service %s", id)
		}
		const mounted = "/etc/mailcutover/mailcutover.yaml"
		if got := s.mounts()[mounted]; got != "configs/compose.yaml" {
			t.Errorf("%s: %s is %q", id, mounted, got)
		}
		if got, want := strings.Join(s.Command, " "), "serve --config "+mounted; got != want || s.Build != "." {
			t.Errorf("%s: runs %q of the image from %q, want %q", id, got, s.Build, want)
		}
		if s.User != "65532:65532" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: user %q, read only %t, without %v", id, s.User, s.ReadOnly, s.CapDrop)
		}
		if got := strings.Join(s.Healthcheck.Test, " "); got != "CMD /usr/bin/mailcutover health" {
			t.Errorf("%s: health is asked by %q", id, got)
		}
		if got := s.containerPorts(t); !slices.Equal(got, want) {
			t.Errorf("%s: publishes %v, configs/compose.yaml listens at %v", id, got, want)
		}
		if got, want := s.Environment[config.Table.Redis.PasswordEnv], requirepass(t); got == "" || got != want {
			t.Errorf("%s: %s is %q, redis.conf has %q", id, config.Table.Redis.PasswordEnv, got, want)
		}
		if got := "password=" + s.Environment["MAILBOXES_PASSWORD"]; !strings.Contains(string(read(t, "configs/peers/dovecot-source.conf")), got+"\n") ||
			!strings.Contains(string(read(t, "configs/peers/dovecot-target.conf")), got+"\n") {
			t.Errorf("%s: the master user's %s is not that of both Dovecots", id, got)
		}
		keys[s.Environment["LIST_KEY"]] = true
		names[s.Environment["MAILCUTOVER_NODE"]] = true
		for _, v := range s.Volumes {
			if source, inside, _ := strings.Cut(v, ":"); inside == config.Data {
				volumes[source] = true
			}
		}
	}
	if len(names) != 2 || names[""] || len(volumes) != 2 {
		t.Errorf("names %v, volumes of their data %v: want two of each", names, volumes)
	}
	if len(keys) != 1 {
		t.Errorf("keys of lists %v: want one for both nodes", keys)
	}
}

// Sentinels watch the primary by its service's name and Redis' password, and the replica follows it.
func TestRedisServices(t *testing.T) {
	f, config := load(t)
	password := requirepass(t)
	for _, address := range config.Table.Redis.Sentinel.Addresses {
		host, p, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		script := strings.Join(f.Services[host].Command, "\n")
		for _, part := range []string{"'sentinel monitor " + config.Table.Redis.Sentinel.Master + " redis 6379 2'", "'sentinel auth-pass " + config.Table.Redis.Sentinel.Master + " " + password + "'", "exec redis-server /data/sentinel.conf --sentinel"} {
			if !strings.Contains(script, part) {
				t.Errorf("%s: no %s", host, part)
			}
		}
		if f.Services[host].mounts()["/etc/redis/sentinel.conf"] != "configs/peers/sentinel.conf" || !regexp.MustCompile(`(?m)^port `+p+`$`).Match(read(t, "configs/peers/sentinel.conf")) {
			t.Errorf("%s: mounts %v, port %s", host, f.Services[host].mounts(), p)
		}
	}
	if n := len(config.Table.Redis.Sentinel.Addresses); n != 3 {
		t.Errorf("%d Sentinels", n)
	}
	for _, id := range []string{"redis", "redis-replica"} {
		command := strings.Join(f.Services[id].Command, " ")
		if !strings.Contains(command, "--masterauth "+password) || !strings.Contains(command, "--replica-announce-ip "+id) || (id == "redis-replica") != strings.HasSuffix(command, " --replicaof redis 6379") {
			t.Errorf("%s runs %q", id, command)
		}
	}
}

func requirepass(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^requirepass (\S+)$`).FindSubmatch(read(t, "configs/peers/redis.conf"))
	if m == nil {
		t.Fatal("redis.conf has no requirepass")
	}
	return string(m[1])
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Errorf("address %q: %v", address, err)
	}
	return p
}

// TestServicesFindEachOther follows every host:port from one configuration to a service
// that listens there.
func TestServicesFindEachOther(t *testing.T) {
	f, config := load(t)
	var hops []string
	redis, err := url.Parse(config.Table.Redis.URL)
	if err != nil {
		t.Fatalf("table.redis.url: %v", err)
	}
	hops = append(hops, redis.Host)
	for _, p := range config.Platforms {
		hops = append(hops, p.Outside.Hosts...)
		hops = append(hops, p.Inside.Hosts...)
		hops = append(hops, p.Mailboxes.Hosts...)
	}
	for _, d := range config.Identity.Directories {
		for _, server := range d.Servers {
			hops = append(hops, strings.TrimPrefix(server, "ldap://"))
		}
	}
	// The next hops of the MX, the one in the comment too.
	next := regexp.MustCompile(`relay_transport = \w+:(?:inet:)?\[(\w+)\]:(\d+)`).FindAllSubmatch(read(t, "configs/peers/postfix-mx.cf"), -1)
	if len(next) != 2 {
		t.Errorf("postfix-mx.cf names %d next hops, want SMTP and LMTP", len(next))
	}
	for _, m := range next {
		hops = append(hops, string(m[1])+":"+string(m[2]))
	}
	if len(config.Platforms) != 2 || len(hops) < 9 {
		t.Errorf("%d platforms, hops %v", len(config.Platforms), hops)
	}
	for _, hop := range hops {
		host, p, err := net.SplitHostPort(hop)
		if err != nil {
			t.Errorf("%q: %v", hop, err)
			continue
		}
		s, ok := f.Services[host]
		if !ok {
			t.Errorf("%s: no such service", hop)
		} else if !slices.Contains(s.containerPorts(t), p) {
			t.Errorf("%s: the service has %v", hop, s.containerPorts(t))
		}
	}
}

func TestFileAsAWhole(t *testing.T) {
	f, _ := load(t)
	hostPorts := make(map[string]string)
	for name, s := range f.Services {
		for _, p := range s.Ports {
			host := strings.Split(p, ":")[1]
			if other, taken := hostPorts[host]; taken {
				t.Errorf("%s and %s have the same port %s", name, other, host)
			}
			hostPorts[host] = name
		}
		for _, v := range s.Volumes {
			f1 := strings.Split(v, ":")
			if strings.HasPrefix(f1[0], ".") {
				if f1[len(f1)-1] != "ro" {
					t.Errorf("%s: %s is not read-only", name, v)
				}
			} else if _, ok := f.Volumes[f1[0]]; !ok {
				t.Errorf("%s: volume %s is not declared", name, f1[0])
			}
		}
		for _, d := range s.DependsOn {
			if _, ok := f.Services[d]; !ok {
				t.Errorf("%s depends on %s, which is no service", name, d)
			}
		}
	}
	// A misspelt key would be ignored by this test and refused by docker.
	known := yaml.NewDecoder(bytes.NewReader(read(t, "docker-compose.yml")))
	known.KnownFields(true)
	var strict struct {
		Name     string
		Node     service `yaml:"x-node"`
		Sentinel service `yaml:"x-sentinel"`
		Services map[string]service
		Volumes  map[string]any
	}
	if err := known.Decode(&strict); err != nil {
		t.Errorf("docker-compose.yml: %v", err)
	}
}
