;; What Ruby's bindings want from their host: here a value is its own handle.
(module
  (func (export "resource_new_rb-abi-value") (param i32) (result i32) (local.get 0))
  (func (export "resource_get_rb-abi-value") (param i32) (result i32) (local.get 0))
  (func (export "resource_drop_js-abi-value") (param i32))
)
