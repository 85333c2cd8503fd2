package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The reference for operators is made from the example file: one place to write in.
func TestReference(t *testing.T) {
	compare(t, "../../docs/operations/config.md", reference(t))
}

func reference(t *testing.T) string {
	t.Helper()
	file, err := os.ReadFile(configs + "/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Settings

<!-- Made from configs/mailcutover.example.yaml: go test ./internal/config -run Reference -update -->

A node reads one YAML file, %[1]sserve --config FILE%[1]s. This is enough to begin with (%[1]sconfigs/minimal.yaml%[1]s):

%[2]s
%[1]sconfig check FILE%[1]s says all that is wrong with a file, each with its key, its value and what would be right; a node
doesn't start, and doesn't reload, as long as anything is. %[1]sconfig show%[1]s prints what is in force, without secrets.

- Durations, sizes and rates have units: %[1]s250ms%[1]s, %[1]s30s%[1]s, %[1]s5m%[1]s, %[1]s4h%[1]s; %[1]s512B%[1]s, %[1]s64KiB%[1]s, %[1]s36MiB%[1]s, %[1]s1GiB%[1]s; %[1]s500B/s%[1]s.
  0 needs none.
- File names are relative to the directory of the file. Secrets stand in files that only their owner can read, or in
  environment variables; never in the file itself.
- A variable goes before the file. There are none for what stands in lists.
- A reload (SIGHUP, or the API) takes over all of a new file or nothing of it. Keys marked *restart* can't change in a
  running node; a reload that would change one is refused and names it. *(presence)*: other files are taken over,
  but TLS can't be switched on or off.

`, "`", "    "+strings.ReplaceAll(strings.TrimSuffix(string(file), "\n"), "\n", "\n    ")+"\n")

	all, restart := allKeys(), restartKeys()
	variables := make(map[string]string)
	for name, key := range Variables() {
		variables[key] = name
	}
	type section struct {
		comment string
		keys    []string // as list items
	}
	sections := map[string]*section{"": {}}
	order := []string{""}
	seen := make(map[string]bool)
	for _, e := range readExample(t) {
		if seen[e.key] || repeats.MatchString(e.key) {
			continue
		}
		seen[e.key] = true
		e.comment = strings.NewReplacer("<", "&lt;", "*", "\\*").Replace(e.comment)
		if e.section {
			order = append(order, e.key)
			sections[e.key] = &section{comment: e.comment}
			continue
		}
		var facts []string
		if all[e.key] != "" {
			facts = append(facts, "default `"+all[e.key]+"`")
		}
		if v := variables[e.key]; v != "" {
			facts = append(facts, "`"+v+"`")
		}
		switch restart[e.key] {
		case "yes":
			facts = append(facts, "*restart*")
		case "presence":
			facts = append(facts, "*restart (presence)*")
		}
		item := "- `" + e.key + "`"
		if len(facts) > 0 {
			item += " (" + strings.Join(facts, ", ") + ")"
		}
		in := strings.TrimSuffix(e.key[:max(strings.LastIndexByte(e.key, '.'), 0)], "[]")
		sections[in].keys = append(sections[in].keys, item+"  \n  "+e.comment+"\n")
	}
	for _, name := range order {
		s := sections[name]
		switch {
		case name == "":
			b.WriteString("## At the top\n")
		case strings.Contains(name, "."):
			fmt.Fprintf(&b, "\n### %s\n", name)
		default:
			fmt.Fprintf(&b, "\n## %s\n", name)
		}
		if s.comment != "" {
			fmt.Fprintf(&b, "\n%s\n", s.comment)
		}
		if len(s.keys) > 0 {
			fmt.Fprintf(&b, "\n%s", strings.Join(s.keys, ""))
		}
	}
	return b.String()
}
