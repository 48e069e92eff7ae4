;; Runs `/main.rb` in Ruby, which is compiled to WASI as a library (npm: @ruby/3.4-wasm-wasi). There is one memory: its own.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "ruby" "memory" (memory 0))
  (import "ruby" "cabi_realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
  (import "ruby" "ruby-init: func(args: list<string>) -> ()" (func $init (param i32 i32)))
  (import "ruby" "rb-eval-string-protect: func(str: string) -> tuple<handle<rb-abi-value>, s32>"
    (func $eval (param i32 i32) (result i32)))
  (data $args "ruby\00--disable=all\00-e_=0\00")
  (data $program
    "begin; load '/main.rb'; rescue Exception => e; $stderr.puts e.full_message(highlight: false); raise; ensure; $stdout.flush; end")
  (func $alloc (param $bytes i32) (result i32)
    (call $realloc (i32.const 0) (i32.const 0) (i32.const 4) (local.get $bytes)))
  (func (export "_start")
    (local $text i32) (local $list i32)
    ;; Three strings, each with the zero byte that C wants: a list of addresses and lengths.
    (local.set $text (call $alloc (i32.const 25)))
    (memory.init $args (local.get $text) (i32.const 0) (i32.const 25))
    (local.set $list (call $alloc (i32.const 24)))
    (i32.store (local.get $list) (local.get $text))
    (i32.store offset=4 (local.get $list) (i32.const 5))
    (i32.store offset=8 (local.get $list) (i32.add (local.get $text) (i32.const 5)))
    (i32.store offset=12 (local.get $list) (i32.const 14))
    (i32.store offset=16 (local.get $list) (i32.add (local.get $text) (i32.const 19)))
    (i32.store offset=20 (local.get $list) (i32.const 6))
    (call $init (local.get $list) (i32.const 3))
    (local.set $text (call $alloc (i32.const 127)))
    (memory.init $program (local.get $text) (i32.const 0) (i32.const 127))
    ;; What it gives is a value, and whether something was raised.
    (if (i32.load offset=4 (call $eval (local.get $text) (i32.const 127)))
      (then (call $exit (i32.const 1)))))
)
