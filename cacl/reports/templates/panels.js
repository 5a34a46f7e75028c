"use strict";
// What only works with a script is shown, and of the elements with the class "panel" the one that is chosen.
{
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
  const choice = document.getElementById("panel");
  const panels = [...document.querySelectorAll(".panel")];
  const show = () => panels.forEach((panel, number) => { panel.hidden = number !== Number(choice.value); });
  choice.addEventListener("change", show);
  show();
}
