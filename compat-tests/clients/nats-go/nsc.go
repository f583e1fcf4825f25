package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
)

// tool runs the official tool on a store of its own.
func tool(folder string, arguments ...string) (string, error) {
	command := exec.Command(os.Getenv("NSC"), append(arguments,
		"--data-dir", filepath.Join(folder, "stores"), "--config-dir", filepath.Join(folder, "config"),
		"--keystore-dir", filepath.Join(folder, "keys"))...)
	command.Env = append(os.Environ(), "HOME="+folder, "NSC_NO_GIT_IGNORE=1", "NO_COLOR=1")
	output, err := command.CombinedOutput()
	return string(output), err
}

// administration is an operator's day with nsc: set up, push, pull, revoke, delete.
func administration() {
	folder := must(os.MkdirTemp(os.Getenv("SCENARIO_DIR"), "nsc-"))
	run := func(arguments ...string) string {
		output, err := tool(folder, arguments...)
		if err != nil {
			panic(fmt.Sprintf("nsc %v: %v\n%s", arguments, err, output))
		}
		return output
	}
	run("add", "operator", "--name", "op", "--sys", "--generate-signing-key")
	run("edit", "operator", "--require-signing-keys", "--service-url", "nats://127.0.0.1:1")
	run("add", "account", "--name", "A")
	run("edit", "account", "--name", "A", "--sk", "generate")
	run("add", "user", "--account", "A", "--name", "u", "--allow-pubsub", "a.>")
	run("edit", "signing-key", "--account", "A", "--sk", "generate", "--role", "worker",
		"--allow-pub", "jobs.{{name()}}.>", "--allow-sub", "_INBOX.>,jobs.>")
	run("add", "user", "--account", "A", "--name", "w", "-K", "worker")
	run("generate", "config", "--nats-resolver", "--sys-account", "SYS", "--config-file", filepath.Join(folder, "resolver.conf"))
	config := string(must(os.ReadFile(filepath.Join(folder, "resolver.conf"))))
	config = regexp.MustCompile(`dir: .*`).ReplaceAllString(config, `dir: "FOLDER/jwt"`)
	config = strings.ReplaceAll(config, "allow_delete: false", "allow_delete: true")
	s := start(config)
	defer s.stop()
	run("edit", "operator", "--account-jwt-server-url", s.url)
	creds := func(account, user string) nats.Option {
		file := filepath.Join(folder, user+".creds")
		run("generate", "creds", "--account", account, "--name", user, "--output-file", file)
		return nats.UserCredentials(file)
	}
	denied("before the push", s, creds("A", "u"))
	note("push", count(run("push", "--all"), "OK"))
	nc := admitted("after the push", s, creds("A", "u"))
	check("allowed", delivers(nc, nc, "a.b", "a.>"), true)
	check("not allowed", delivers(nc, nc, "b", "a.>"), false)
	worker := admitted("with a role", s, creds("A", "w"))
	check("own jobs", delivers(worker, worker, "jobs.w.1", "jobs.>"), true)
	check("jobs of others", delivers(worker, worker, "jobs.u.1", "jobs.>"), false)
	worker.Close()

	run("add", "user", "--account", "SYS", "--name", "admin")
	admin := admitted("system", s, creds("SYS", "admin"))
	ok(admin.Flush())
	admin.Close()

	run("revocations", "add-user", "--account", "A", "--name", "u")
	run("push", "--account", "A")
	check("revoked", ending("revoked", nc), nats.ErrAuthRevoked.Error())
	denied("revoked", s, creds("A", "u"))

	run("add", "account", "--name", "B")
	note("push another", count(run("push", "--account", "B"), "OK"))
	run("delete", "account", "--name", "B", "--force")
	note("pull", count(run("pull", "--all"), "pulled"))
	note("prune", count(run("push", "--all", "--prune"), "OK"))
}

// count counts the lines that contain a word.
func count(text, word string) int {
	lines := 0
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			lines++
		}
	}
	return lines
}
