// Runs before the first paint, so that nobody who chose dark is shown light for a moment.
"use strict";
{
  const chosen = localStorage.getItem("bacnode.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
