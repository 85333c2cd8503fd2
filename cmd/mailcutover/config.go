package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/internal/config"
)

// newConfigCommand returns the commands about a node's settings.
func newConfigCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "A node's settings: check, show, reload"}
	cmd.AddCommand(newConfigCheck(c), newConfigShow(c), newConfigReload(c))
	return cmd
}

// loadConfig reads a file; what is wrong is one problem in each line.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path, os.Environ())
	if problems, ok := errors.AsType[config.Problems](err); ok {
		p := &admin.Problem{Detail: fmt.Sprintf("configuration %s: %d wrong", path, len(problems)), Hint: "correct the keys named above; every key is in the commented example"}
		for _, one := range problems {
			p.Errors = append(p.Errors, admin.Detail{Message: one.String()})
		}
		return nil, p
	}
	return cfg, err
}

func newConfigCheck(c *connection) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Say everything that is wrong with a configuration file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(args[0])
			if err != nil {
				return err
			}
			warnings := []string{}
			for _, w := range cfg.Warnings {
				warnings = append(warnings, w.String())
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", printable(w.String()))
			}
			return c.show(cmd, map[string]any{"file": cfg.Path, "warnings": warnings}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is right: %d listeners, %d platforms, approval: %s\n", cfg.Path, len(cfg.Listeners), len(cfg.Platforms), cfg.Approval)
			})
		},
	}
}

func newConfigShow(c *connection) *cobra.Command {
	var file string
	var changed bool
	show := func(cmd *cobra.Command, text string) error {
		return c.show(cmd, map[string]string{"yaml": text}, func(w io.Writer) { _, _ = io.WriteString(w, text) })
	}
	cmd := c.command(&cobra.Command{
		Use: "show", Short: "The settings in force at the node, or those of a file, as YAML without secrets", Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		text, err := client.Config(cmd.Context(), changed)
		if err != nil {
			return err
		}
		return show(cmd, text)
	})
	remote := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" {
			return remote(cmd, args)
		}
		cfg, err := loadConfig(file)
		if err != nil {
			return err
		}
		return show(cmd, config.Show(cfg, changed))
	}
	cmd.Flags().StringVar(&file, "config", "", "show this file's settings, without asking a node")
	cmd.Flags().BoolVar(&changed, "changed", false, "only what differs from the defaults")
	return cmd
}

func newConfigReload(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{Use: "reload", Short: "Let the node read its configuration file again", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			done, err := client.Reload(cmd.Context(), reason)
			if err != nil {
				return err
			}
			return c.show(cmd, done, func(w io.Writer) {
				for _, text := range done.Warnings {
					fmt.Fprintf(w, "warning: %s\n", printable(text))
				}
				if len(done.Changed) == 0 {
					fmt.Fprintln(w, "reloaded; nothing changed")
					return
				}
				fmt.Fprintf(w, "reloaded; changed: %s\n", printable(strings.Join(done.Changed, ", ")))
				fmt.Fprintln(w, "undo: put the old file back, then mailcutover config reload --reason ...")
			})
		})
	addReason(cmd, &reason)
	return cmd
}
