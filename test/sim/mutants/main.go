// Command mutants leaves out one rule of the switch after the other and looks whether the
// simulation notices (docs/testing.md, docs/architecture/mutants.md). It changes no file:
// each mutant is an overlay of the Go build.
//
// Usage: go run ./test/sim/mutants [-only TEXT] [-time 30m] [-seeds N] [-again] [-all] [-page].
// A mutant for which the list names a test has that one; others have the scene or seed first
// that noticed it before, then all scenes, then seeds. With -all every mutant has the scenes
// first: so it shows where the simulation has come to notice what the list says it doesn't.
// What was found is kept, and counts as long as no source file changes that the simulation or
// one of those tests is made of: so a run that ended by -time is gone on with by the next.
//
// It prints a table and fails if a mutant survives, if its text is no longer found, or if
// the time was over.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	seeds = flag.Int("seeds", 300, "seeds that a mutant gets that no scene notices")
	only  = flag.String("only", "", "mutants whose rule and name have this in it")
	limit = flag.Duration("time", 30*time.Minute, "after which no further mutant is begun")
	again = flag.Bool("again", false, "forget what was found before")
	at    = flag.Int("procs", runtime.NumCPU(), "mutants at a time")
	all   = flag.Bool("all", false, "the scenes for every mutant")
	page  = flag.Bool("page", false, "write docs/architecture/mutants.md and do nothing else")
)

func main() {
	flag.Parse()
	err := run()
	if *page {
		err = os.WriteFile("docs/architecture/mutants.md", []byte(text()), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func (m *mutant) String() string { return m.rule + ": " + m.name }

// result is what became of a mutant.
type result struct {
	By    string        `json:"by"` // what noticed; empty: nothing
	Took  time.Duration `json:"took"`
	error error
}

func run() error {
	if *page {
		return nil
	}
	memory, err := recall()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env GOCACHE: %w", err)
	}
	// The same place as tools/sim, so that the build cache knows the standard library again.
	out, err := exec.Command("go", "run", "./test/sim/overlay", filepath.Join(strings.TrimSpace(string(cache)), "mailcutover-overlay")).Output()
	if err != nil {
		return fmt.Errorf("overlay of the runtime: %w", err)
	}
	base, err := os.ReadFile(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	var list []mutant
	for _, m := range mutants {
		if strings.Contains(m.String(), *only) {
			list = append(list, m)
		}
	}
	began := time.Now()
	results := make([]*result, len(list))
	next := make(chan int)
	var workers sync.WaitGroup
	for range max(1, *at) {
		workers.Go(func() {
			for i := range next {
				r := try(&list[i], filepath.Join(dir, fmt.Sprint(i)), base, memory.Before[list[i].String()])
				results[i] = &r
				memory.keep(&list[i], r)
				print(&list[i], &r)
			}
		})
	}
	for i := range list {
		if r, known := memory.of(&list[i]); known {
			results[i] = &r
			print(&list[i], &r)
		} else if time.Since(began) < *limit {
			next <- i
		}
	}
	close(next)
	workers.Wait()
	return judge(list, results)
}

func judge(list []mutant, results []*result) error {
	var simulated, tested, survived, left int
	for i := range list {
		switch r := results[i]; {
		case r == nil:
			left++
		case r.error != nil || r.By == "":
			survived++
		case strings.HasPrefix(r.By, "test "):
			tested++
		default:
			simulated++
		}
	}
	fmt.Printf("%d mutants: %d noticed by the simulation, %d by a test that docs/architecture/mutants.md explains\n", len(list), simulated, tested)
	switch {
	case survived > 0:
		return fmt.Errorf("%d mutants were not noticed, or could not be tried", survived)
	case left > 0:
		return fmt.Errorf("the time is over, %d mutants are left: the next run goes on", left)
	}
	return nil
}

func print(m *mutant, r *result) {
	switch {
	case r.error != nil:
		fmt.Printf("%-75s  ERROR %v\n", m, r.error)
	case r.By == "":
		fmt.Printf("%-75s  NOT NOTICED, %.0f s\n", m, r.Took.Seconds())
	default:
		fmt.Printf("%-75s  %s, %.0f s\n", m, r.By, r.Took.Seconds())
	}
}

// memory is what earlier runs found, for these very source files.
type memory struct {
	mu      sync.Mutex
	path    string
	Sources string            `json:"sources"`
	Found   map[string]result `json:"found"`
	Before  map[string]string `json:"before"` // what noticed a mutant last, of whatever sources
}

func recall() (*memory, error) {
	home, err := os.UserCacheDir()
	if err != nil {
		home = os.TempDir()
	}
	m := &memory{path: filepath.Join(home, "mailcutover", "mutants.json")}
	sources, err := digest()
	if err != nil {
		return nil, err
	}
	if b, err := os.ReadFile(m.path); err == nil && !*again {
		_ = json.Unmarshal(b, m) // what can't be read is found anew
	}
	if m.Before == nil {
		m.Before = map[string]string{}
	}
	for name, r := range m.Found {
		if r.By != "" {
			m.Before[name] = r.By
		}
	}
	if m.Sources != sources || m.Found == nil {
		m.Sources, m.Found = sources, map[string]result{}
	}
	return m, os.MkdirAll(filepath.Dir(m.path), 0o755)
}

func (m *memory) of(of *mutant) (result, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, known := m.Found[of.String()]
	return r, known && r.By != ""
}

func (m *memory) keep(of *mutant, r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Found[of.String()] = r
	if b, err := json.Marshal(m); err == nil {
		_ = os.WriteFile(m.path, b, 0o644) // else the next run begins anew
	}
}

// digest is over all source files that the simulation and the tests of the list are made of.
func digest() (string, error) {
	args := []string{"list", "-deps", "-test", "-f", `{{if and .Module .Module.Main}}{{.Dir}}{{end}}`, "./test/sim"}
	for i := range mutants {
		if pkg := mutants[i].test.pkg; pkg != "" && !slices.Contains(args, pkg) {
			args = append(args, pkg)
		}
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	dirs := strings.Fields(string(out))
	slices.Sort(dirs)
	h := sha256.New()
	for _, dir := range slices.Compact(dirs) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if e.IsDir() || !slices.Contains([]string{".go", ".lua"}, filepath.Ext(e.Name())) {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, filepath.Base(dir), e.Name(), len(b))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var (
	failed   = regexp.MustCompile(`seed (\d+): [0-9.]+ s: (\w+):`)
	broken   = regexp.MustCompile(`seed (\d+): (fill|not all)`)
	quoted   = regexp.MustCompile(`^scene "([^"]*)"`)
	numbered = regexp.MustCompile(`^seed (\d+)`)

	running = regexp.MustCompile(`=== RUN +TestSeeds/seed_(\d+)`)
)

// try builds a mutant and runs what may notice it; before is what did so last.
func try(m *mutant, dir string, base []byte, before string) (r result) {
	began := time.Now()
	defer func() { r.Took = time.Since(began) }()
	replaced, err := m.files(dir)
	if err != nil {
		return result{error: err}
	}
	if m.test.pkg != "" {
		if *all {
			if r := simulated(m, dir, base, replaced, before); r.By != "" || r.error != nil {
				return r
			}
		}
		plain, err := write(filepath.Join(dir, "plain.json"), []byte("{}"), replaced)
		if err != nil {
			return result{error: err}
		}
		out, err := exec.Command("go", "test", "-vet=off", "-count=1", "-timeout", "3m", "-overlay", plain, "-run", "^("+m.test.run+")$", m.test.pkg).CombinedOutput()
		switch failure := regexp.MustCompile(`--- FAIL: (\S+)`).FindSubmatch(out); {
		case err == nil:
			return result{}
		case failure != nil:
			return result{By: fmt.Sprintf("test %s %s", m.test.pkg, failure[1])}
		case strings.Contains(string(out), "panic:"):
			return result{By: fmt.Sprintf("test %s panics", m.test.pkg)}
		default:
			return result{error: fmt.Errorf("%.300s", out)}
		}
	}
	return simulated(m, dir, base, replaced, before)
}

// simulated builds the simulation with a mutant and runs what may notice it: the scenes, and
// where no test is named, seeds.
func simulated(m *mutant, dir string, base []byte, replaced map[string]string, before string) result {
	overlay, err := write(filepath.Join(dir, "overlay.json"), base, replaced)
	if err != nil {
		return result{error: err}
	}
	program := filepath.Join(dir, "sim.test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-tags", "deterministic", "-o", program, "./test/sim").CombinedOutput(); err != nil {
		return result{error: fmt.Errorf("build: %s", out)}
	}
	defer os.Remove(program)
	if name := quoted.FindStringSubmatch(before); name != nil {
		if by := scenes(program, name[1]); by != "" {
			return result{By: by}
		}
	} else if n := numbered.FindStringSubmatch(before); n != nil {
		if r := seed(program, n[1], "1"); r.By != "" {
			return r
		}
	}
	if by := scenes(program, ""); by != "" || m.test.pkg != "" {
		return result{By: by}
	}
	return seed(program, "1", fmt.Sprint(*seeds))
}

// seed runs seeds until one notices.
func seed(program, first, n string) result {
	// -test.v: a panic or an endless run is the fault of the seed that was begun last.
	out, err := play(program, "-test.v", "-test.run", "^TestSeeds$", "-test.failfast", "-sim.first", first, "-sim.seeds", n, "-sim.stop", "-test.timeout", "10m")
	if err == nil {
		return result{}
	}
	if f := failed.FindSubmatch(out); f != nil {
		return result{By: fmt.Sprintf("seed %s: %s", f[1], f[2])}
	} else if f := broken.FindSubmatch(out); f != nil {
		return result{By: fmt.Sprintf("seed %s doesn't start", f[1])}
	} else if all := running.FindAllSubmatch(out, -1); len(all) > 0 {
		return result{By: fmt.Sprintf("seed %s panics", all[len(all)-1][1])}
	}
	return result{error: fmt.Errorf("%.300s", out)}
}

// scenes says which scene notices, of those that have a text in their name; empty: none.
func scenes(program, name string) string {
	out, err := play(program, "-test.v", "-test.run", "^TestScenes$", "-test.timeout", "3m", "-sim.scene", name)
	if err == nil {
		return ""
	}
	for block := range strings.SplitSeq(string(out), "=== RUN   TestScenes/") {
		name, rest, _ := strings.Cut(block, "\n")
		for line := range strings.Lines(rest) {
			// What isn't where the scene should be says nothing of the rule.
			if f := regexp.MustCompile(` s: (\w+): `).FindStringSubmatch(line); f != nil && f[1] != "scene" && strings.Contains(line, "scenes_test.go") {
				return fmt.Sprintf("scene %q: %s", strings.ReplaceAll(name, "_", " "), f[1])
			}
		}
	}
	return ""
}

// play runs the simulation's program.
func play(program string, args ...string) ([]byte, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = "test/sim"
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return out, err
	}
	return out, err
}

// files writes the changed files, and returns them by the path that they replace.
func (m *mutant) files(dir string) (map[string]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	replaced := map[string]string{}
	for i, e := range m.edits {
		path, err := filepath.Abs(e.file)
		if err != nil {
			return nil, err
		}
		from := path
		if earlier, is := replaced[path]; is {
			from = earlier
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		if n := strings.Count(string(b), e.old); n != 1 {
			return nil, fmt.Errorf("%s has %q %d times, want once", e.file, e.old, n)
		}
		to := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(e.file)))
		if err := os.WriteFile(to, []byte(strings.Replace(string(b), e.old, e.new, 1)), 0o644); err != nil {
			return nil, err
		}
		replaced[path] = to
	}
	return replaced, nil
}

// write writes an overlay: base and what is replaced.
func write(path string, base []byte, replaced map[string]string) (string, error) {
	var o struct{ Replace map[string]string }
	if err := json.Unmarshal(base, &o); err != nil {
		return "", err
	}
	if o.Replace == nil {
		o.Replace = map[string]string{}
	}
	for from, to := range replaced {
		o.Replace[from] = to
	}
	b, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, b, 0o644)
}
