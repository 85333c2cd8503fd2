package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/reference/commands.md anew")

const commandsPage = "../../docs/reference/commands.md"

// commands returns the reference of all commands, made from the same texts as --help.
func commands(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString("# Commands\n\n" +
		"Made from the commands themselves, which say the same with `--help`: `go test ./cmd/mailcutover -run Reference -update`.\n\n" +
		"All commands that talk to a node take these; what they change is journaled with person and reason, and they say what undoes it.\n\n```\n" +
		strings.TrimRight(root.PersistentFlags().FlagUsages(), "\n") + "\n```\n\n" +
		"Exit codes: 0 done; 1 failed, or refused by the node; 2 the command line is wrong, nothing was sent; 3 the node can't be\n" +
		"reached or didn't answer: look before you repeat it; 4 a precondition isn't met; 5 not allowed.\n")
	for _, group := range root.Commands() {
		if group.Hidden || group.Name() == "help" || group.Name() == "completion" {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", group.Name(), sentence(group))
		if group.Runnable() && !group.HasSubCommands() || group.HasLocalFlags() && group.HasSubCommands() {
			describe(&b, group)
		}
		for _, cmd := range below(group) {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n", strings.TrimPrefix(cmd.CommandPath(), "mailcutover "), sentence(cmd))
			describe(&b, cmd)
		}
	}
	return b.Bytes()
}

// below returns the commands of a group, in the order of their names.
func below(group *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range group.Commands() {
		if cmd.Hidden {
			continue
		}
		if cmd.HasSubCommands() {
			all = append(all, below(cmd)...)
			continue
		}
		all = append(all, cmd)
	}
	return all
}

func sentence(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return strings.TrimRight(cmd.Long, "\n")
	}
	return cmd.Short + "."
}

// describe writes how a command is called.
func describe(b *bytes.Buffer, cmd *cobra.Command) {
	fmt.Fprintf(b, "\n```\n%s\n", cmd.UseLine())
	var flags pflag.FlagSet
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			flags.AddFlag(f)
		}
	})
	if usages := strings.TrimRight(flags.FlagUsages(), "\n"); usages != "" {
		fmt.Fprintf(b, "\n%s\n", usages)
	}
	if cmd.Example != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	b.WriteString("```\n")
}

func TestCommandsReference(t *testing.T) {
	want := commands(newRootCommand())
	if *update {
		if err := os.WriteFile(commandsPage, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(commandsPage)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the commands say; run: go test ./cmd/mailcutover -run Reference -update", commandsPage)
	}
}
